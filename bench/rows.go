package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// marks looks out for the rows that mark the beginning and the end of what a tracer
// is to see. The time at which the first of each came through is sent once to its
// channel.
type marks struct {
	opening     []byte   // the path
	closing     [][]byte // the paths, for each CPU
	openingSeen chan time.Duration
	closingSeen []chan time.Duration
	opened      bool
	closed      []bool
}

func newMarks(p paths) *marks {
	m := &marks{opening: []byte(p.opening), openingSeen: make(chan time.Duration, 1), closed: make([]bool, len(p.closing))}
	for _, path := range p.closing {
		m.closing = append(m.closing, []byte(path))
		m.closingSeen = append(m.closingSeen, make(chan time.Duration, 1))
	}
	return m
}

// look takes one line of output, and reports whether it was a mark's.
func (m *marks) look(line []byte) bool {
	if bytes.HasSuffix(line, m.opening) {
		if !m.opened {
			m.opened = true
			m.openingSeen <- now()
		}
		return true
	}
	for i, path := range m.closing {
		if bytes.HasSuffix(line, path) {
			if !m.closed[i] {
				m.closed[i] = true
				m.closingSeen[i] <- now()
			}
			return true
		}
	}
	return false
}

// eachLine calls f with each line of r, without the spaces and the newline at
// its end, up to the end of r. It is one loop over one large buffer, so that the
// bench takes little of the CPU that the tracer and the load share. A line
// longer than the buffer comes in parts.
func eachLine(r io.Reader, f func(line []byte)) error {
	lines := bufio.NewReaderSize(r, 256<<10)
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 {
			f(bytes.TrimRight(line, " \n"))
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
	}
}

// rowCounter counts the load's rows in a tracer's output. A row is the load's
// if it names the load's comm, where it has one, and ends in one of the two paths
// that the load opens or runs, or has what it connects to.
type rowCounter struct {
	*marks
	comm, present, missing []byte
	row                    func(line []byte) (what []byte, events int64)

	shown    int64 // rows of the load
	saidLost bool  // the tracer wrote that it lost events
}

func newRowCounter(s *scenario, p paths) *rowCounter {
	row := s.row
	if row == nil {
		row = func(line []byte) ([]byte, int64) { return line, 1 }
	}
	return &rowCounter{marks: newMarks(p), comm: []byte(s.comm), present: []byte(p.present), missing: []byte(p.missing), row: row}
}

// count reads r to its end.
func (c *rowCounter) count(r io.Reader) error {
	return eachLine(r, func(line []byte) {
		what, events := c.row(line)
		switch ours := events > 0 && bytes.Contains(line, c.comm); {
		case ours && (bytes.HasSuffix(what, c.present) || bytes.HasSuffix(what, c.missing)):
			c.shown += events
		case ours && c.look(what):
		case bytes.HasPrefix(line, []byte("Lost ")), bytes.Contains(line, []byte(" Lost ")):
			c.saidLost = true // bpftrace writes its losses between the rows
		}
	})
}

// now is the kernel's monotonic clock, which every process on the machine
// shares, so that a start in one can be taken from an arrival in another.
func now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		// The clock exists on every kernel since 2.5.
		panic(err)
	}
	return time.Duration(ts.Nano())
}
