package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// rowCounter counts the load's rows in a tracer's output. A row is the load's
// if it names the load's comm and ends in one of the two paths that the load
// opens.
type rowCounter struct {
	comm             []byte
	present, missing []byte
	// opening and closing are the paths of the marks that come before and
	// after the load. The time at which the first row of each came through is
	// sent once to the channel of the same name.
	opening, closing         []byte
	openingSeen, closingSeen chan time.Duration

	shown    int64 // rows of the load
	saidLost bool  // the tracer wrote that it lost events
}

func newRowCounter(comm string, p paths) *rowCounter {
	return &rowCounter{
		comm:    []byte(comm),
		present: []byte(p.present), missing: []byte(p.missing),
		opening: []byte(p.opening), closing: []byte(p.closing),
		openingSeen: make(chan time.Duration, 1), closingSeen: make(chan time.Duration, 1),
	}
}

// count reads r to its end. It is one loop over one large buffer, so that the
// bench takes little of the CPU that the tracer and the load share.
func (c *rowCounter) count(r io.Reader) error {
	lines := bufio.NewReaderSize(r, 256<<10)
	var opened, closed bool
	for {
		line, err := lines.ReadSlice('\n')
		c.classify(bytes.TrimRight(line, " \n"), &opened, &closed)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
	}
}

func (c *rowCounter) classify(line []byte, opened, closed *bool) {
	switch {
	case !bytes.Contains(line, c.comm):
		// bpftrace writes its losses between the rows.
		if bytes.HasPrefix(line, []byte("Lost ")) || bytes.Contains(line, []byte(" Lost ")) {
			c.saidLost = true
		}
	case bytes.HasSuffix(line, c.present), bytes.HasSuffix(line, c.missing):
		c.shown++
	case !*opened && bytes.HasSuffix(line, c.opening):
		*opened = true
		c.openingSeen <- now()
	case !*closed && bytes.HasSuffix(line, c.closing):
		*closed = true
		c.closingSeen <- now()
	}
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
