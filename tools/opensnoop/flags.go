package main

import (
	"fmt"
	"math/bits"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// flag is a name of open(2)'s flags. Some have more than one bit.
type flag struct {
	name string
	bits uint32
}

// openFlags are the flags besides the access mode, those with several bits first.
var openFlags = []flag{
	{"O_TMPFILE", unix.O_TMPFILE}, // has O_DIRECTORY's bit
	{"O_SYNC", unix.O_SYNC},
	{"O_APPEND", unix.O_APPEND},
	{"O_ASYNC", unix.O_ASYNC},
	{"O_CLOEXEC", unix.O_CLOEXEC},
	{"O_CREAT", unix.O_CREAT},
	{"O_DIRECT", unix.O_DIRECT},
	{"O_DIRECTORY", unix.O_DIRECTORY},
	{"O_DSYNC", unix.O_DSYNC},
	{"O_EXCL", unix.O_EXCL},
	{"O_LARGEFILE", oLargefile},
	{"O_NOATIME", unix.O_NOATIME},
	{"O_NOCTTY", unix.O_NOCTTY},
	{"O_NOFOLLOW", unix.O_NOFOLLOW},
	{"O_NONBLOCK", unix.O_NONBLOCK},
	{"O_PATH", unix.O_PATH},
	{"O_TRUNC", unix.O_TRUNC},
}

// oLargefile is the kernel's value; the C library's is 0 on 64-bit machines.
var oLargefile = map[string]uint32{"amd64": 0o100000, "arm64": 0o400000}[runtime.GOARCH]

var accessModes = []string{"O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"}

// flagFilter is what -f asks for: a call passes that has all bits of one of the
// masks, or one of the access modes.
type flagFilter struct {
	masks [16]uint32
	count uint32
	modes uint8 // a bit for each access mode
	names []string
}

func (f *flagFilter) String() string { return strings.Join(f.names, ",") }
func (f *flagFilter) Type() string   { return "flag" }

// Set adds the flag named s, with or without "O_".
func (f *flagFilter) Set(s string) error {
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "O_") {
		name = "O_" + name
	}
	if mode := slices.Index(accessModes[:3], name); mode >= 0 {
		f.modes |= 1 << mode
		f.names = append(f.names, name)
		return nil
	}
	if name == "O_NDELAY" {
		name = "O_NONBLOCK"
	}
	i := slices.IndexFunc(openFlags, func(o flag) bool { return o.name == name })
	if i < 0 {
		return fmt.Errorf("there is no flag %s", s)
	}
	if int(f.count) == len(f.masks) {
		return fmt.Errorf("more than %d flags", len(f.masks))
	}
	f.masks[f.count] = openFlags[i].bits
	f.count++
	f.names = append(f.names, name)
	return nil
}

// appendFlags appends flags by name: "O_WRONLY|O_CREAT". Bits without a name come
// last, in hexadecimal.
func appendFlags(dst []byte, flags uint64) []byte {
	dst = append(dst, accessModes[flags&unix.O_ACCMODE]...)
	rest := flags &^ unix.O_ACCMODE
	for _, f := range openFlags {
		if b := uint64(f.bits); b != 0 && rest&b == b {
			dst = append(append(dst, '|'), f.name...)
			rest &^= b
		}
	}
	if rest != 0 {
		dst = fmt.Appendf(dst, "|%#x", rest)
	}
	return dst
}

// flagNames gives the same as a list.
func flagNames(flags uint64) []string {
	return strings.Split(string(appendFlags(make([]byte, 0, 16*(1+bits.OnesCount64(flags))), flags)), "|")
}
