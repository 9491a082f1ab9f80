package main

import (
	"fmt"
	"io"
	"path"
	"strings"
)

// A cpioWriter writes an archive in the "newc" form, which the kernel unpacks
// as its first root file system (see the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst).
// Every file belongs to root. Errors stick, and Close returns the first.
type cpioWriter struct {
	w    io.Writer
	ino  int
	dirs map[string]bool
	err  error
}

func newCpioWriter(w io.Writer) *cpioWriter {
	return &cpioWriter{w: w, dirs: map[string]bool{".": true, "": true}}
}

// File types, as in inode(7).
const (
	cpioDir  = 0o040000
	cpioChar = 0o020000
	cpioFile = 0o100000
)

// Dir adds a directory with the given permissions. Its parents, like those of
// the other methods' files, are added where they are missing: the kernel makes
// none by itself.
func (c *cpioWriter) Dir(name string, perm int) {
	name = cpioName(name)
	if c.dirs[name] {
		return
	}
	c.parents(name)
	c.dirs[name] = true
	c.entry(name, cpioDir|perm, 2, 0, 0, nil)
}

// File adds a regular file.
func (c *cpioWriter) File(name string, perm int, data []byte) {
	name = cpioName(name)
	c.parents(name)
	c.entry(name, cpioFile|perm, 1, 0, 0, data)
}

// CharDevice adds the node of a character device.
func (c *cpioWriter) CharDevice(name string, perm, major, minor int) {
	name = cpioName(name)
	c.parents(name)
	c.entry(name, cpioChar|perm, 1, major, minor, nil)
}

// Close ends the archive. It does not close the underlying writer.
func (c *cpioWriter) Close() error {
	c.entry("TRAILER!!!", 0, 1, 0, 0, nil)
	return c.err
}

func cpioName(name string) string { return strings.Trim(path.Clean(name), "/") }

func (c *cpioWriter) parents(name string) {
	if dir := path.Dir(name); !c.dirs[dir] {
		c.Dir(dir, 0o755)
	}
}

func (c *cpioWriter) entry(name string, mode, links, major, minor int, data []byte) {
	c.ino++
	// Fields: inode, mode, uid, gid, links, time, size, device (two), device
	// of a node (two), size of the name with its NUL, checksum (unused).
	header := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		c.ino, mode, 0, 0, links, 0, len(data), 0, 0, major, minor, len(name)+1, 0, name)
	c.padded([]byte(header))
	c.padded(data)
}

// padded writes b and the zeros that bring its size to a multiple of 4.
func (c *cpioWriter) padded(b []byte) {
	for _, part := range [][]byte{b, make([]byte, -len(b)&3)} {
		if c.err == nil {
			_, c.err = c.w.Write(part)
		}
	}
}
