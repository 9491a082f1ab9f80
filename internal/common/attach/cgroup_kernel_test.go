package attach

import (
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

// The machine's own root is found in more ways than one, and each takes a program.
func TestKernelCgroupRoot(t *testing.T) {
	livetest.Need(t)
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetEgress, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	for name, open := range map[string]func() (*os.File, error){
		"whichever works": func() (*os.File, error) {
			root, whole, err := cgroupRoot()
			if err == nil && !whole {
				t.Error("the root that was found is not the machine's")
			}
			return root, err
		},
		"mounted for this":                   mountCgroups,
		"mounted in the first one's cgroups": mountCgroupsOfInit,
	} {
		root, err := open()
		if errors.Is(err, unix.EACCES) {
			t.Logf("%s: not tested, since the first process may not be looked at here", name)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		defer root.Close()
		var st unix.Stat_t
		if err := unix.Fstat(int(root.Fd()), &st); err != nil || st.Ino != rootInode {
			t.Errorf("%s: inode %d, %v", name, st.Ino, err)
		}
		l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(root.Fd()), Program: prog, Attach: ebpf.AttachCGroupInetEgress})
		if err != nil {
			t.Errorf("%s: attach: %v", name, err)
			continue
		}
		if err := l.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
