package main

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gobcc/gobcc/internal/common/mappings"
	"github.com/gobcc/gobcc/internal/common/unwind"
)

// A file's table is made once for all who are in want of it at a time.
func TestTableReader(t *testing.T) {
	timeline := mappings.New(mappings.Options{})
	defer timeline.Close()
	if err := timeline.Snapshot([]uint32{uint32(os.Getpid())}); err != nil {
		t.Fatal(err)
	}
	maps := timeline.Process(uint32(os.Getpid())).Mappings()
	i := slices.IndexFunc(maps, func(m mappings.Mapping) bool { return m.File.Kind == mappings.Regular })
	if i < 0 {
		t.Fatalf("this process has no program: %+v", maps)
	}
	file := maps[i].File
	r := newTableReader()
	made := atomic.Int32{}
	r.build = func(in io.ReaderAt) (*unwind.Table, error) {
		made.Add(1)
		return unwind.Open(in)
	}
	var tables [4]*unwind.Table
	var all sync.WaitGroup
	for i := range tables {
		read := r.later(file)
		all.Go(func() {
			var err error
			if tables[i], err = read(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if made.Load() != 1 || tables[0] == nil || tables[0] != tables[3] {
		t.Errorf("made %d times: %p", made.Load(), tables)
	}
	if addr, ok := tables[0].Layout.Segments.Address(maps[i].Offset); !ok || addr == 0 {
		t.Errorf("what is mapped first has the address %#x, %v", addr, ok)
	}
	for range 2 {
		r.complain(file, errors.New("no reason"))
	}
	if len(r.problems) != 1 || !strings.Contains(r.problems[0].Error(), file.Path+": no stacks can be walked in it") {
		t.Errorf("said: %v", r.problems)
	}
}
