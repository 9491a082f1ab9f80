package perfevent

import (
	"encoding/binary"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// counting is the event of one CPU, and what was read of it.
type counting struct {
	fd      int
	counted uint64 // events
	// What time said when it was last looked whether the event is alive, and when that was:
	// just after.
	seen  time.Duration
	since time.Time
}

// countingFormat is what a counting is to be opened with, as Read_format.
const countingFormat = unix.PERF_FORMAT_TOTAL_TIME_ENABLED

// time gives for how long the event has been counting. It stands still once its CPU went
// offline.
func (c *counting) time() (time.Duration, error) {
	var value [16]byte // the count and the time
	n, err := unix.Read(c.fd, value[:])
	if err != nil {
		return 0, err
	}
	if n < len(value) {
		return 0, errors.New("the perf event is in error")
	}
	c.counted = binary.NativeEndian.Uint64(value[:])
	return time.Duration(binary.NativeEndian.Uint64(value[8:])), nil
}

// alive reports whether the event has been counting since this was last asked, or for half
// of that at least: an event ends with its CPU, and stays dead when that comes again. The
// tool may have to wait for a CPU at each step: what passed is from after the last reading
// to before this one, so that it never seems to be more than it was.
func (c *counting) alive() bool {
	passed := time.Since(c.since)
	now, err := c.time()
	if err != nil || now-c.seen < passed/2 {
		return false
	}
	c.seen, c.since = now, time.Now()
	return true
}
