// Package scratch fills the list of free buffers that bpf/headers/scratch.bpf.h
// hands out to programs.
package scratch

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// Fill makes all buffers of a freshly loaded collection available. A collection
// without any is left alone.
func Fill(coll *ebpf.Collection) error {
	free := coll.Maps["scratch_free"]
	if free == nil {
		return nil
	}
	for slot := range free.MaxEntries() {
		if err := free.Update(nil, slot, ebpf.UpdateAny); err != nil {
			return fmt.Errorf("make scratch buffer %d available: %w", slot, err)
		}
	}
	return nil
}
