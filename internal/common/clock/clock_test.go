package clock

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func boot(t *testing.T) uint64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		t.Fatal(err)
	}
	return uint64(now.Nano())
}

func TestBoot(t *testing.T) {
	before := boot(t)
	now := Boot()
	if after := boot(t); now < before || now > after {
		t.Errorf("%d is not between %d and %d", now, before, after)
	}
}

// A stamp taken between two looks at the time of day comes out between them, but
// for what the offset is off by: half of the time that reading the clocks took.
func TestNanos(t *testing.T) {
	const slack = time.Millisecond
	var w Wall
	for range 100 {
		before := time.Now()
		stamp := boot(t)
		after := time.Now()
		got := time.Unix(0, w.Nanos(stamp))
		if got.Before(before.Add(-slack)) || got.After(after.Add(slack)) {
			t.Fatalf("%v is not between %v and %v", got, before, after)
		}
	}
}

// Events of one drain keep their order and their distances: the offset changes
// with Refresh only.
func TestNanosIsLinear(t *testing.T) {
	var w Wall
	base := w.Nanos(1_000_000_000)
	for _, d := range []uint64{0, 1, 2, 1000, 1 << 40} {
		if got := w.Nanos(1_000_000_000 + d); got != base+int64(d) {
			t.Errorf("%d ns later is %d ns later", d, got-base)
		}
	}
}

func TestRefresh(t *testing.T) {
	var w Wall
	w.Refresh()
	if w.at.IsZero() || w.offset == 0 {
		t.Fatalf("refreshed to %+v", w)
	}
	// A fresh offset stays, one that is too old goes.
	for _, test := range []struct {
		age   time.Duration
		stays bool
	}{{0, true}, {refresh / 2, true}, {refresh, false}, {time.Hour, false}} {
		w.offset, w.at = 42, time.Now().Add(-test.age)
		w.Refresh()
		if (w.offset == 42) != test.stays {
			t.Errorf("an offset %v old: stays is %v", test.age, w.offset == 42)
		}
	}
}

func TestNanosAllocatesNothing(t *testing.T) {
	var w Wall
	w.Refresh()
	if n := testing.AllocsPerRun(100, func() { w.Nanos(1) }); n != 0 {
		t.Errorf("%v allocations an event", n)
	}
}
