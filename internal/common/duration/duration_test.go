package duration

import (
	"testing"
	"time"
)

func TestSeconds(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"1": time.Second, "60": time.Minute, "0.5": time.Second / 2, ".25": time.Second / 4, "1.": time.Second,
		"5m": 5 * time.Minute, "2h": 2 * time.Hour, "1h30m": 90 * time.Minute, "100ms": time.Second / 10, "3s": 3 * time.Second,
		"9223372036": 9223372036 * time.Second, "0.000000001": 1,
	} {
		var v Seconds
		if err := v.Set(in); err != nil || time.Duration(v) != want {
			t.Errorf("%q is %v, %v, not %v", in, time.Duration(v), err, want)
		}
	}
	for _, in := range notATime {
		v := Seconds(7)
		if err := v.Set(in); err == nil || v != 7 {
			t.Errorf("%q is %v", in, time.Duration(v))
		}
	}
	var zero Seconds
	if zero.String() != "" {
		t.Errorf("no duration is shown as %q", zero.String())
	}
}

func TestMicros(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"1": time.Microsecond, "1000": time.Millisecond, "0.5": 500, "2ms": 2 * time.Millisecond, "10us": 10 * time.Microsecond,
		"10µs": 10 * time.Microsecond, "250ns": 250, "1s": time.Second, "1m": time.Minute, "9223372036854775": 9223372036854775 * time.Microsecond,
	} {
		var m Micros
		if err := m.Set(in); err != nil || time.Duration(m) != want {
			t.Errorf("%q is %v, %v, not %v", in, time.Duration(m), err, want)
		}
	}
	for _, in := range notATime {
		m := Micros(7)
		if err := m.Set(in); err == nil || m != 7 {
			t.Errorf("%q is %v", in, time.Duration(m))
		}
	}
}

func TestMillis(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"1": time.Millisecond, "1000": time.Second, "0.5": 500 * time.Microsecond, "2s": 2 * time.Second, "10us": 10 * time.Microsecond,
		"0.000001": 1, "9223372036854": 9223372036854 * time.Millisecond,
	} {
		var m Millis
		if err := m.Set(in); err != nil || time.Duration(m) != want {
			t.Errorf("%q is %v, %v, not %v", in, time.Duration(m), err, want)
		}
	}
	for _, in := range notATime {
		m := Millis(7)
		if err := m.Set(in); err == nil || m != 7 {
			t.Errorf("%q is %v", in, time.Duration(m))
		}
	}
}

// notATime is refused whatever the unit.
var notATime = []string{
	"", " ", "0", "-0", "0s", "0.0", "-1", "-5ms", "abc", "nan", "NaN", "inf", "+Inf", "1e3", "0x10", "1 ", " 1", "1,5", "1_000", "5x", "5u", "5n",
	"s", "ms", ".", "+", "99999999999999999999", "9223372036854775808", "99999999999h", "0.0000000000000001",
}
