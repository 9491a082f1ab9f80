package output

import (
	"strconv"
	"time"
)

// AppendInt appends v in decimal, in at least width cells: right aligned, or
// left aligned when width is negative, as printf's %6d and %-6d.
func AppendInt(dst []byte, v int64, width int) []byte {
	var digits [20]byte
	return appendAligned(dst, strconv.AppendInt(digits[:0], v, 10), width)
}

// AppendUint is [AppendInt] for values that need all 64 bits, as cgroup ids do.
func AppendUint(dst []byte, v uint64, width int) []byte {
	var digits [20]byte
	return appendAligned(dst, strconv.AppendUint(digits[:0], v, 10), width)
}

// AppendOctal appends v in octal with leading zeros up to digits, as %08o.
func AppendOctal(dst []byte, v uint64, digits int) []byte {
	var buf [22]byte
	return appendZeroFilled(dst, strconv.AppendUint(buf[:0], v, 8), digits)
}

// AppendHex appends v in lower-case hexadecimal, without 0x, with leading zeros
// up to digits, as %016x.
func AppendHex(dst []byte, v uint64, digits int) []byte {
	var buf [16]byte
	return appendZeroFilled(dst, strconv.AppendUint(buf[:0], v, 16), digits)
}

// AppendDuration appends a time of ns nanoseconds as a number of units with so
// many decimals (0 to 9), rounded to the nearest, half away from zero. The unit
// is a power of ten of at most a second: time.Second, time.Millisecond,
// time.Microsecond or time.Nanosecond. Width is as in [AppendInt]: with
// time.Second, 9 and -14 it is %-14.9f, without the rounding of a float.
func AppendDuration(dst []byte, ns int64, unit time.Duration, decimals, width int) []byte {
	abs := uint64(ns)
	if ns < 0 {
		abs = -abs
	}
	// Digits after the point below a nanosecond are zeros.
	zeros := 0
	step := uint64(unit)
	for range decimals {
		if step == 1 {
			zeros++
			continue
		}
		step /= 10
	}
	// A rounded value below half a step has no sign: -0.000 would look like a
	// time before the start.
	rounded := (abs + step/2) / step
	perUnit := uint64(unit) / step

	var buf [40]byte
	out := buf[:0]
	if ns < 0 && rounded > 0 {
		out = append(out, '-')
	}
	out = strconv.AppendUint(out, rounded/perUnit, 10)
	if decimals > 0 {
		out = append(out, '.')
		if decimals > zeros {
			var frac [20]byte
			out = appendZeroFilled(out, strconv.AppendUint(frac[:0], rounded%perUnit, 10), decimals-zeros)
		}
		for range zeros {
			out = append(out, '0')
		}
	}
	return appendAligned(dst, out, width)
}

func appendAligned(dst, text []byte, width int) []byte {
	if width < 0 {
		dst = append(dst, text...)
		return appendSpaces(dst, -width-len(text))
	}
	dst = appendSpaces(dst, width-len(text))
	return append(dst, text...)
}

func appendZeroFilled(dst, text []byte, digits int) []byte {
	for n := digits - len(text); n > 0; n-- {
		dst = append(dst, '0')
	}
	return append(dst, text...)
}
