// Package duration has flag values for times that users write as plain numbers,
// as in BCC, or with a unit.
package duration

import (
	"fmt"
	"strings"
	"time"
)

// Seconds is a flag value: a time above 0, plain numbers being seconds.
type Seconds time.Duration

func (v *Seconds) String() string {
	if *v == 0 {
		return ""
	}
	return time.Duration(*v).String()
}

// Type names the kind of value, as pflag wants it.
func (v *Seconds) Type() string { return "seconds" }

// Set takes what the user wrote.
func (v *Seconds) Set(s string) error {
	d, err := parse(s, "s")
	if err != nil || d <= 0 {
		return fmt.Errorf("%q is not a number of seconds above 0", s)
	}
	*v = Seconds(d)
	return nil
}

// Micros is a flag value: a time above 0, plain numbers being microseconds.
type Micros time.Duration

func (m *Micros) String() string {
	if *m == 0 {
		return ""
	}
	return time.Duration(*m).String()
}

// Type names the kind of value, as pflag wants it.
func (m *Micros) Type() string { return "duration" }

// Set takes what the user wrote.
func (m *Micros) Set(s string) error {
	d, err := parse(s, "us")
	if err != nil || d <= 0 {
		return fmt.Errorf("%q is not a time: microseconds, or a number with ns, us, ms or s", s)
	}
	*m = Micros(d)
	return nil
}

// Millis is a flag value: a time above 0, plain numbers being milliseconds.
type Millis time.Duration

func (m *Millis) String() string {
	if *m == 0 {
		return ""
	}
	return time.Duration(*m).String()
}

// Type names the kind of value, as pflag wants it.
func (m *Millis) Type() string { return "duration" }

// Set takes what the user wrote.
func (m *Millis) Set(s string) error {
	d, err := parse(s, "ms")
	if err != nil || d <= 0 {
		return fmt.Errorf("%q is not a time: milliseconds, or a number with ns, us, ms or s", s)
	}
	*m = Millis(d)
	return nil
}

// parse reads a time with a unit, or a plain number of the given unit.
func parse(s, unit string) (time.Duration, error) {
	if strings.Trim(s, "+-.0123456789") == "" {
		s += unit
	}
	return time.ParseDuration(s)
}
