// Package constants sets what an object's programs take for constants: the verifier sees
// their values, and drops the branches that they switch off.
package constants

import (
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
)

// Set sets variables of an object that is not loaded yet, by their names in it.
func Set(spec *ebpf.CollectionSpec, values map[string]any) error {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		v := spec.Variables[name]
		if v == nil {
			return fmt.Errorf("the object lacks the variable %s", name)
		}
		if err := v.Set(values[name]); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}
