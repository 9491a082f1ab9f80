package main

import (
	"fmt"
	"path"

	"github.com/gobcc/gobcc/internal/common/mappings"
	"github.com/gobcc/gobcc/internal/common/symbols"
)

// namer names frames when the sampling is over.
type namer struct {
	files map[*mappings.File]*mapped
	list  []*mapped // in the order of first use
}

// name names all frames of an engine, and gives the files that they are in.
func (n *namer) name(e *engine) []*mapped {
	n.files = map[*mappings.File]*mapped{}
	for _, f := range e.frames {
		if f.place.file != nil {
			f.File = n.file(f.place.file)
		}
		f.Lines = []symbols.Line{{Function: unnamed(f)}}
	}
	return n.list
}

func (n *namer) file(f *mappings.File) *mapped {
	m := n.files[f]
	if m == nil {
		m = &mapped{Path: f.Path, BuildID: f.BuildID}
		n.files[f] = m
		n.list = append(n.list, m)
	}
	return m
}

// unnamed says what is known of a frame that has no name.
func unnamed(f located) string {
	switch {
	case f.kind == kindKernel:
		return "[kernel]"
	case f.kind == kindJIT:
		return "[anon]"
	case f.kind == kindUnknown:
		return "[unknown]"
	}
	return fmt.Sprintf("[%s+%#x]", path.Base(f.place.file.Path), f.address)
}
