package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"

	"github.com/gobcc/gobcc/internal/common/output"
)

// writeScript writes each sample with its time, laid out as perf script does it, which
// FlameScope, stackcollapse-perf.pl and others read.
func writeScript(w io.Writer, r *report) error {
	b := bufio.NewWriterSize(w, 64<<10)
	texts := map[*stack]scriptText{}
	for _, m := range r.Moments {
		text, ok := texts[m.Stack]
		if !ok {
			text = scriptOf(m.Stack)
			texts[m.Stack] = text
		}
		period := r.Period
		if period == 0 { // it varied
			period = m.Period
		}
		b.Write(text.task)
		fmt.Fprintf(b, "[%03d] %5d.%06d: %10d %s: \n", m.CPU, m.Time/1e9, m.Time%1e9/1e3, period, escaped(r.Event))
		b.Write(text.frames)
		b.WriteByte('\n')
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write the samples as a script: %w", err)
	}
	return nil
}

// scriptText is what is the same in all samples of a stack.
type scriptText struct{ task, frames []byte }

func scriptOf(s *stack) scriptText {
	task := scriptComm(s.Comm)
	task = append(task, ' ')
	task = output.AppendUint(task, uint64(s.Process.PID), 7)
	task = append(task, '/')
	task = output.AppendUint(task, uint64(s.TID), -7)
	task = append(task, ' ')
	var text []byte
	for _, frames := range [][]*frame{s.Kernel, s.user()} {
		for _, f := range frames {
			for i, l := range f.Lines {
				text = append(text, '\t')
				text = appendHexWide(text, f.Address)
				text = append(text, ' ')
				text = output.AppendEscaped(text, []byte(l.Function))
				switch {
				case i < len(f.Lines)-1:
					text = append(text, " (inlined)\n"...)
					continue
				case l.Start > 0 && l.Start <= f.Address:
					text = append(text, "+0x"...)
					text = output.AppendHex(text, f.Address-l.Start, 1)
				}
				text = append(text, " ("...)
				if f.File == nil {
					text = append(text, "[unknown]"...)
				} else {
					// What reads this takes a file for a word.
					text = append(text, bytes.ReplaceAll([]byte(escaped(f.File.Path)), []byte{' '}, []byte(`\x20`))...)
				}
				text = append(text, ")\n"...)
			}
		}
	}
	return scriptText{task, text}
}

// scriptComm gives a comm in which nothing looks like the pid that comes after it.
func scriptComm(comm string) []byte {
	if comm == "" {
		return []byte("[unnamed]")
	}
	name := output.AppendEscaped(nil, []byte(comm))
	var safe []byte
	for i, c := range name {
		if c == ' ' && (i == 0 || i+1 == len(name) || name[i+1] >= '0' && name[i+1] <= '9') {
			safe = append(safe, `\x20`...)
			continue
		}
		safe = append(safe, c)
	}
	return safe
}

// appendHexWide is %16x.
func appendHexWide(dst []byte, v uint64) []byte {
	start := len(dst)
	dst = output.AppendHex(dst, v, 1)
	if short := 16 - (len(dst) - start); short > 0 {
		dst = append(dst, make([]byte, short)...)
		copy(dst[start+short:], dst[start:len(dst)-short])
		for i := range short {
			dst[start+i] = ' '
		}
	}
	return dst
}
