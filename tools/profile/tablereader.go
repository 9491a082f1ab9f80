package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/gobcc/gobcc/internal/common/mappings"
	"github.com/gobcc/gobcc/internal/common/symbols"
	"github.com/gobcc/gobcc/internal/common/unwind"
)

// tableReader reads the tables of files. When a program is new, the kernel and the walks of
// copies are in want of one at the same time, and get the same.
type tableReader struct {
	build func(io.ReaderAt) (*unwind.Table, error)
	cache *unwind.Cache
	turns chan struct{} // for those who read at once

	said     map[*mappings.File]bool
	problems []error // of files that stacks ended in, as they have no table
}

// recentTables is how much memory those tables take that were read last, in bytes.
const recentTables = 16 << 20

func newTableReader() *tableReader {
	return &tableReader{
		build: unwind.Open, cache: unwind.NewCache(recentTables), turns: make(chan struct{}, runtime.GOMAXPROCS(0)),
		said: map[*mappings.File]bool{},
	}
}

// later gives a function that reads a file's table, at any time and beside all else.
func (r *tableReader) later(f *mappings.File) func() (*unwind.Table, error) {
	open, kind := f.Opener(), f.Kind
	var key any = f
	if f.BuildID != "" {
		key = f.BuildID
	}
	return func() (*unwind.Table, error) {
		return r.cache.Table(key, func() (*unwind.Table, error) {
			r.turns <- struct{}{}
			defer func() { <-r.turns }()
			return r.read(kind, open)
		})
	}
}

func (r *tableReader) read(kind mappings.Kind, open func() (*os.File, error)) (*unwind.Table, error) {
	if kind == mappings.VDSO {
		image, err := symbols.VDSOImage()
		if err != nil {
			return nil, err
		}
		return r.build(bytes.NewReader(image))
	}
	file, err := open()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return r.build(file)
}

// complain notes why a file that stacks ended in has no table, once.
func (r *tableReader) complain(f *mappings.File, err error) {
	if !r.said[f] {
		r.said[f] = true
		r.problems = append(r.problems, fmt.Errorf("%s: no stacks can be walked in it but by frame pointers: %w", f.Path, err))
	}
}
