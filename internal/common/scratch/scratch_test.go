package scratch

import (
	"testing"

	"github.com/cilium/ebpf"
)

func TestFillLeavesACollectionWithoutBuffersAlone(t *testing.T) {
	if err := Fill(&ebpf.Collection{Maps: map[string]*ebpf.Map{}}); err != nil {
		t.Error(err)
	}
}
