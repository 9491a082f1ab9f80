package constants

import (
	"testing"

	"github.com/cilium/ebpf"
)

func TestSet(t *testing.T) {
	spec := &ebpf.CollectionSpec{Variables: map[string]*ebpf.VariableSpec{"want": {Name: "want", Value: make([]byte, 4)}}}
	if err := Set(spec, map[string]any{"want": uint32(23)}); err != nil || spec.Variables["want"].Value[0] != 23 {
		t.Errorf("%v, %v", spec.Variables["want"].Value, err)
	}
	if err := Set(spec, map[string]any{"want": uint64(23)}); err == nil || err.Error()[:len("set want: ")] != "set want: " {
		t.Errorf("a value of another size: %v", err)
	}
	if err := Set(spec, map[string]any{"other": true}); err == nil || err.Error() != "the object lacks the variable other" {
		t.Errorf("a variable that is not there: %v", err)
	}
}
