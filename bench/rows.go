package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// marks looks out for the rows of the opens that mark the beginning and the end
// of what a tracer is to see. The time at which the first of each came through
// is sent once to its channel.
type marks struct {
	opening, closing         []byte // the paths
	openingSeen, closingSeen chan time.Duration
	opened, closed           bool
}

func newMarks(p paths) *marks {
	return &marks{
		opening: []byte(p.opening), closing: []byte(p.closing),
		openingSeen: make(chan time.Duration, 1), closingSeen: make(chan time.Duration, 1),
	}
}

// look takes one line of output, and reports whether it was a mark's.
func (m *marks) look(line []byte) bool {
	switch {
	case bytes.HasSuffix(line, m.opening):
		if !m.opened {
			m.opened = true
			m.openingSeen <- now()
		}
	case bytes.HasSuffix(line, m.closing):
		if !m.closed {
			m.closed = true
			m.closingSeen <- now()
		}
	default:
		return false
	}
	return true
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
// if it names the load's comm and ends in one of the two paths that the load
// opens.
type rowCounter struct {
	*marks
	comm, present, missing []byte

	shown    int64 // rows of the load
	saidLost bool  // the tracer wrote that it lost events
}

func newRowCounter(comm string, p paths) *rowCounter {
	return &rowCounter{marks: newMarks(p), comm: []byte(comm), present: []byte(p.present), missing: []byte(p.missing)}
}

// count reads r to its end.
func (c *rowCounter) count(r io.Reader) error {
	return eachLine(r, func(line []byte) {
		switch {
		case !bytes.Contains(line, c.comm):
			// bpftrace writes its losses between the rows.
			if bytes.HasPrefix(line, []byte("Lost ")) || bytes.Contains(line, []byte(" Lost ")) {
				c.saidLost = true
			}
		case bytes.HasSuffix(line, c.present), bytes.HasSuffix(line, c.missing):
			c.shown++
		default:
			c.look(line)
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
