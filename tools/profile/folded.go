package main

import (
	"bufio"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/gobcc/gobcc/internal/common/output"
)

// style is how stacks are written as text.
type style struct {
	delimited, annotations, addresses bool
	userOnly, kernelOnly              bool
}

// writeFolded writes a line a stack as flamegraph.pl reads it: "comm;root;…;leaf COUNT".
// Those of several processes and threads that read the same are one.
func writeFolded(w io.Writer, r *report, s style) error {
	counts := map[string]uint64{}
	var line []byte
	for _, st := range r.Stacks {
		line = appendEscapedName(line[:0], st.Comm)
		line = s.appendFolded(line, st.user())
		if s.separates(st) {
			line = append(line, ";-"...)
		}
		line = s.appendFolded(line, st.Kernel)
		counts[string(line)] += st.Count
	}
	out := bufio.NewWriter(w)
	for _, line := range slices.Sorted(maps.Keys(counts)) {
		out.WriteString(line)
		out.WriteByte(' ')
		out.WriteString(strconv.FormatUint(counts[line], 10))
		out.WriteByte('\n')
	}
	return out.Flush()
}

// separates reports whether a stack has two parts that are to be told apart.
func (s style) separates(st *stack) bool {
	return s.delimited && !s.userOnly && !s.kernelOnly && len(st.user()) > 0 && len(st.Kernel) > 0
}

// appendFolded appends frames, the root first, each with a semicolon before it.
func (s style) appendFolded(line []byte, frames []*frame) []byte {
	for _, f := range slices.Backward(frames) {
		for i := range slices.Backward(f.Lines) {
			line = append(line, ';')
			line = s.appendFrame(line, f, i, appendEscapedName)
		}
	}
	return line
}

// appendFrame appends one of the functions of a frame; escape is for its name.
func (s style) appendFrame(b []byte, f *frame, line int, escape func([]byte, string) []byte) []byte {
	if s.addresses && f != truncated {
		b = append(b, "0x"...)
		b = strconv.AppendUint(b, f.Address, 16)
		b = append(b, ' ')
	}
	b = escape(b, f.Lines[line].Function)
	if !s.annotations {
		return b
	}
	switch {
	case line < len(f.Lines)-1:
		return append(b, "_[i]"...)
	case f.Kind == kindKernel:
		return append(b, "_[k]"...)
	case f.Kind == kindJIT:
		return append(b, "_[j]"...)
	}
	return b
}

// appendEscapedName escapes what would end a name or a line in folded stacks.
func appendEscapedName(b []byte, name string) []byte {
	start := len(b)
	b = output.AppendEscaped(b, []byte(name))
	if !slices.Contains(b[start:], ';') {
		return b
	}
	escaped := b[start:]
	with := make([]byte, 0, len(escaped)+8)
	for _, c := range escaped {
		if c == ';' {
			with = append(with, `\x3b`...)
			continue
		}
		with = append(with, c)
	}
	return append(b[:start], with...)
}
