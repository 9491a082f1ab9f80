package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/gobcc/gobcc/internal/common/output"
)

// writeText writes the stacks as BCC's profile does: the leaf first, the kernel's part
// before that of user space, and those with the most samples last. Threads of a process
// are not told apart.
func writeText(w io.Writer, r *report, s style) error {
	counts := map[string]uint64{}
	var text []byte
	for _, st := range r.Stacks {
		text = s.appendText(text[:0], st.Kernel)
		if s.separates(st) {
			text = append(text, "    --\n"...)
		}
		text = s.appendText(text, st.user())
		text = fmt.Appendf(text, "    %-16s %s (%d)\n", "-", output.AppendEscaped(nil, []byte(st.Comm)), st.Process.PID)
		counts[string(text)] += st.Count
	}
	type entry struct {
		text  string
		count uint64
	}
	var all []entry
	for text, n := range counts {
		all = append(all, entry{text, n})
	}
	slices.SortFunc(all, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.count, b.count), cmp.Compare(a.text, b.text))
	})
	out := bufio.NewWriter(w)
	for _, e := range all {
		fmt.Fprintf(out, "%s        %d\n\n", e.text, e.count)
	}
	return out.Flush()
}

// appendText appends a line for each function of frames, the leaf first.
func (s style) appendText(b []byte, frames []*frame) []byte {
	for _, f := range frames {
		for i := range f.Lines {
			b = append(b, "    "...)
			b = s.appendFrame(b, f, i, func(b []byte, name string) []byte { return output.AppendEscaped(b, []byte(name)) })
			b = append(b, '\n')
		}
	}
	return b
}
