// Package paths puts the names that bpf/headers/paths.bpf.h walks together into
// paths.
package paths

import (
	"bytes"

	"github.com/cilium/ebpf"
)

// Marks is what paths.bpf.h says of the names it walked (enum path_mark).
type Marks uint8

// The marks.
const (
	Cut         Marks = 1 << iota // the names nearest the root are missing
	Deleted                       // the file no longer has a name
	Unreachable                   // it does not lie below the root it was looked at from
	WholeFS                       // the names start at the root of the file system
)

// Join appends the path made of names, which stand leaf first with a NUL behind
// each. No names at all are the root.
func Join(dst, names []byte) []byte {
	if len(names) == 0 {
		return append(dst, '/')
	}
	for end := len(names) - 1; end > 0; {
		start := bytes.LastIndexByte(names[:end], 0) + 1
		dst = append(dst, '/')
		dst = append(dst, names[start:end]...)
		end = start - 1
	}
	return dst
}

// Host makes spec's programs give paths from the host's root, whatever the root
// of the process is.
func Host(spec *ebpf.CollectionSpec, mounts *Mounts) error {
	if err := spec.Variables["path_root_host"].Set(true); err != nil {
		return err
	}
	return spec.Variables["path_host_mntns"].Set(mounts.Namespace)
}
