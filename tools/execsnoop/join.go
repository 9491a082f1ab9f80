package main

import (
	"bytes"
	"fmt"
	"maps"

	"github.com/gobcc/gobcc/internal/common/events"
	"github.com/gobcc/gobcc/internal/common/paths"
	"github.com/gobcc/gobcc/internal/common/trace"
)

// started is an exec, with all that came in its records.
type started struct {
	bpfExec
	filename  []byte // as it was given to the system call
	interp    []byte // of a script, else empty
	args      [][]byte
	env       [][]byte // the variables asked for
	exe, cwd  []byte   // nil if not known
	ancestors []bpfAncestor

	argsMissing  uint64 // arguments of which nothing is there
	bytesMissing uint64
}

// parts is what came of an exec before its last record.
type parts struct {
	args, env []byte
	exe, cwd  []byte
	ancestors []bpfAncestor
	number    uint64 // how many had begun before
}

// maxParts bounds the execs whose last record is waited for. It comes soon after
// the others unless it was lost: not more than 64 execs, one for each buffer of the
// kernel side, are under way at once.
const maxParts = 512

// kindAt is where the kind stands in every record, behind the id.
const kindAt = 8

// handle takes a record of the ring buffer.
func (p *printer) handle(r *trace.Run, record []byte) error {
	if len(record) <= kindAt {
		return fmt.Errorf("a record of %d bytes has no kind", len(record))
	}
	switch kind := bpfKind(record[kindAt]); kind {
	case bpfKindKIND_EXEC:
		s, err := p.start(record)
		if err != nil || s.Ret >= 0 && p.execs.Again(s.Id) {
			return err
		}
		return p.showStart(r, s)
	case bpfKindKIND_EXIT:
		return p.end(record)
	case bpfKindKIND_TIMES:
		var t bpfTimes
		if _, err := events.Decode(&t, record); err != nil {
			return err
		}
		return p.times(r, &t)
	default:
		return p.part(kind, record)
	}
}

// part keeps a part of an exec until the exec comes.
func (p *printer) part(kind bpfKind, record []byte) error {
	var head bpfPart
	rest, err := events.Decode(&head, record)
	if err != nil {
		return err
	}
	of := p.parts[head.Id]
	if of == nil {
		if len(p.parts) >= maxParts {
			p.forgetParts()
		}
		of = &parts{number: p.joined}
		p.joined++
		p.parts[head.Id] = of
	}
	switch kind {
	case bpfKindKIND_ARGS:
		of.args = append(of.args, rest...)
	case bpfKindKIND_ENV:
		of.env = append(of.env, rest...)
	case bpfKindKIND_EXE:
		of.exe = path(rest, paths.Marks(head.Marks))
	case bpfKindKIND_CWD:
		of.cwd = path(rest, paths.Marks(head.Marks))
	case bpfKindKIND_ANCESTORS:
		of.ancestors = nil
		for len(rest) > 0 {
			var a bpfAncestor
			if rest, err = events.Decode(&a, rest); err != nil {
				return err
			}
			of.ancestors = append(of.ancestors, a)
		}
	default:
		return fmt.Errorf("a record has the unknown kind %d", kind)
	}
	return nil
}

// forgetParts drops the older half of the parts: their last records are lost, and
// counted. The others may be under way.
func (p *printer) forgetParts() {
	maps.DeleteFunc(p.parts, func(_ uint64, of *parts) bool { return of.number+maxParts/2 < p.joined })
}

// path puts names together, with a word on what is odd about them.
func path(names []byte, marks paths.Marks) []byte {
	var p []byte
	switch {
	case marks&paths.Unreachable != 0 && len(names) == 0:
		return nil // in no directory, as memfd_create() makes them
	case marks&paths.Unreachable != 0:
		p = append(p, "(unreachable)"...)
	case marks&paths.Cut != 0:
		p = append(p, "..."...)
	}
	p = paths.Join(p, names)
	if marks&paths.Deleted != 0 {
		p = append(p, " (deleted)"...)
	}
	return p
}

// start puts the parts of an exec together.
func (p *printer) start(record []byte) (*started, error) {
	s := &started{}
	rest, err := events.Decode(&s.bpfExec, record)
	if err != nil {
		return nil, err
	}
	if want := int(s.FilenameLen) + int(s.InterpLen) + int(s.ArgsLen); len(rest) < want {
		return nil, fmt.Errorf("an exec's texts of %d bytes are cut to %d", want, len(rest))
	}
	s.filename, rest = rest[:s.FilenameLen], rest[s.FilenameLen:]
	s.interp, rest = rest[:s.InterpLen], rest[s.InterpLen:]
	args := rest[:s.ArgsLen]
	if of := p.parts[s.Id]; of != nil {
		delete(p.parts, s.Id)
		args = append(of.args, args...)
		s.exe, s.cwd, s.ancestors = of.exe, of.cwd, of.ancestors
		s.env = p.variables(last(of.env, s.EnvBytes))
	}
	if s.Ret >= 0 {
		args = last(args, s.ArgsBytes)
	}
	if limit := int(p.opts.maxBytes); len(args) > limit {
		args = args[:limit]
	}
	s.bytesMissing = s.ArgsBytes - min(s.ArgsBytes, uint64(len(args)))
	if !s.marked(bpfMarkMARK_UNREADABLE) || s.Ret < 0 {
		s.args = split(args)
	}
	s.argsMissing = uint64(s.Argc) - min(uint64(s.Argc), uint64(len(s.args)))
	s.ownArgs()
	return s, nil
}

// last gives the last n bytes of b. There are more if the parts of an exec came
// twice, first from a program that could not send all of them and then from its
// spare.
func last(b []byte, n uint64) []byte {
	return b[len(b)-int(min(n, uint64(len(b)))):]
}

// split takes strings apart that end in a NUL, all but perhaps the last.
func split(b []byte) [][]byte {
	var list [][]byte
	for len(b) > 0 {
		arg, rest, _ := bytes.Cut(b, []byte{0})
		list, b = append(list, arg), rest
	}
	return list
}

// ownArgs takes what the kernel put before a script's arguments: the interpreter,
// its option, the script's name. The script's own first argument is gone then, and
// its name stands for it.
func (s *started) ownArgs() {
	if len(s.interp) == 0 {
		return
	}
	// A script's interpreter may be a script: three words for each.
	for i := 1; i < len(s.args) && i <= 15; i++ {
		if bytes.Equal(s.args[i], s.filename) {
			s.args = s.args[i:]
			return
		}
	}
}

// variables picks the variables asked for.
func (p *printer) variables(env []byte) [][]byte {
	var list [][]byte
	for _, v := range split(env) {
		name, _, _ := bytes.Cut(v, []byte{'='})
		for _, want := range p.opts.env {
			if string(name) == want {
				list = append(list, v)
			}
		}
	}
	return list
}
