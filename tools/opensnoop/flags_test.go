package main

import (
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// numbers are the kernel's, from asm-generic/fcntl.h and those of the machines
// that differ: octal, in the order amd64, arm64.
var numbers = map[string][2]uint32{
	"O_CREAT": {0o100, 0o100}, "O_EXCL": {0o200, 0o200}, "O_NOCTTY": {0o400, 0o400}, "O_TRUNC": {0o1000, 0o1000},
	"O_APPEND": {0o2000, 0o2000}, "O_NONBLOCK": {0o4000, 0o4000}, "O_DSYNC": {0o10000, 0o10000}, "O_ASYNC": {0o20000, 0o20000},
	"O_DIRECT": {0o40000, 0o200000}, "O_LARGEFILE": {0o100000, 0o400000}, "O_DIRECTORY": {0o200000, 0o40000},
	"O_NOFOLLOW": {0o400000, 0o100000}, "O_NOATIME": {0o1000000, 0o1000000}, "O_CLOEXEC": {0o2000000, 0o2000000},
	"O_SYNC": {0o4010000, 0o4010000}, "O_PATH": {0o10000000, 0o10000000}, "O_TMPFILE": {0o20200000, 0o20040000},
}

func TestFlagNumbers(t *testing.T) {
	arch := slices.Index([]string{"amd64", "arm64"}, runtime.GOARCH)
	if arch < 0 {
		t.Fatalf("no numbers for %s", runtime.GOARCH)
	}
	for _, f := range openFlags {
		if want := numbers[f.name][arch]; f.bits != want {
			t.Errorf("%s is %#o, not %#o", f.name, f.bits, want)
		}
	}
	if len(openFlags) != len(numbers) {
		t.Errorf("%d flags, and %d numbers", len(openFlags), len(numbers))
	}
}

func TestAppendFlags(t *testing.T) {
	largefile := uint64(oLargefile)
	for flags, want := range map[uint64]string{
		0:                         "O_RDONLY",
		1:                         "O_WRONLY",
		2:                         "O_RDWR",
		3:                         "O_ACCMODE",
		0o301:                     "O_WRONLY|O_CREAT|O_EXCL",
		0o4010000:                 "O_RDONLY|O_SYNC",
		0o10000:                   "O_RDONLY|O_DSYNC",
		0o4000000:                 "O_RDONLY|0x100000", // half of O_SYNC
		0o2000000 | largefile:     "O_RDONLY|O_CLOEXEC|O_LARGEFILE",
		0o4 | 1<<40 | 2:           "O_RDWR|0x10000000004",
		uint64(openFlags[0].bits): "O_RDONLY|O_TMPFILE",
	} {
		if got := string(appendFlags(nil, flags)); got != want {
			t.Errorf("%#o is %s, not %s", flags, got, want)
		}
		if got := strings.Join(flagNames(flags), "|"); got != want {
			t.Errorf("%#o is listed as %s, not %s", flags, got, want)
		}
	}
}

// No bit is hidden, and none is told twice in two names that share none.
func FuzzFlagNames(f *testing.F) {
	f.Add(uint64(0o102))
	f.Add(^uint64(0))
	f.Fuzz(func(t *testing.T, flags uint64) {
		names := flagNames(flags)
		sum := uint64(slices.Index(accessModes, names[0]))
		for _, name := range names[1:] {
			i := slices.IndexFunc(openFlags, func(f flag) bool { return f.name == name })
			if i >= 0 {
				sum |= uint64(openFlags[i].bits)
				continue
			}
			rest, err := strconv.ParseUint(name, 0, 64)
			if err != nil {
				t.Fatalf("%q in %q", name, names)
			}
			if sum&rest != 0 {
				t.Errorf("%#x: %q tells %#x twice", flags, names, sum&rest)
			}
			sum |= rest
		}
		if sum != flags {
			t.Errorf("%#x is told as %#x: %q", flags, sum, names)
		}
	})
}

func TestFlagFilter(t *testing.T) {
	var f flagFilter
	for _, name := range []string{"O_CREAT", "o_excl", "trunc", "O_RDWR", "wronly", "O_NDELAY"} {
		if err := f.Set(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if f.count != 4 || !slices.Equal(f.masks[:5], []uint32{0o100, 0o200, 0o1000, 0o4000, 0}) || f.modes != 1<<2|1<<1 {
		t.Errorf("%+v", f)
	}
	if got := f.String(); got != "O_CREAT,O_EXCL,O_TRUNC,O_RDWR,O_WRONLY,O_NONBLOCK" {
		t.Errorf("shown as %s", got)
	}
	for _, name := range []string{"O_NOSUCH", "", "O_", "O_ACCMODE", "O_CREAT|O_EXCL", "64", " O_CREAT"} {
		before := f
		if err := f.Set(name); err == nil || !strings.Contains(err.Error(), "there is no flag "+name) || f.count != before.count {
			t.Errorf("%q: %v", name, err)
		}
	}
	for f.count < 16 {
		if err := f.Set("O_PATH"); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Set("O_PATH"); err == nil || f.count != 16 {
		t.Errorf("flag 17 of 16: %v", err)
	}
}
