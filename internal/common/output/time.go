package output

const secondsPerDay = 24 * 60 * 60

// AppendTime appends an instant, in nanoseconds since 1970 in UTC, as RFC 3339
// with exactly nine digits of fraction: 2026-03-01T09:05:07.000000042Z. Lines
// thus sort by time as text.
func AppendTime(dst []byte, unixNanos int64) []byte {
	seconds, nanos := floorDiv(unixNanos, 1e9)
	days, second := floorDiv(seconds, secondsPerDay)
	year, month, day := civil(days)

	dst = appendTwo(dst, year/100)
	dst = appendTwo(dst, year%100)
	dst = append(dst, '-')
	dst = appendTwo(dst, month)
	dst = append(dst, '-')
	dst = appendTwo(dst, day)
	dst = append(dst, 'T')
	dst = appendTwo(dst, second/3600)
	dst = append(dst, ':')
	dst = appendTwo(dst, second/60%60)
	dst = append(dst, ':')
	dst = appendTwo(dst, second%60)
	dst = append(dst, '.')
	dst = append(dst, byte('0'+nanos/1e8))
	dst = appendTwo(dst, nanos/1e6%100)
	dst = appendTwo(dst, nanos/1e4%100)
	dst = appendTwo(dst, nanos/1e2%100)
	dst = appendTwo(dst, nanos%100)
	return append(dst, 'Z')
}

// civil turns days since 1970-01-01 into a date of the Gregorian calendar. It
// counts years from March, so that the leap day is the last of its year, in
// cycles of 400 years, which all have 146,097 days. Good for the whole range of
// int64 nanoseconds, 1677 to 2262.
func civil(days int64) (year, month, day int64) {
	const fromYearZero = 719468 // days from 0000-03-01 to 1970-01-01
	cycle, d := floorDiv(days+fromYearZero, 146097)
	// Leap days before d in this cycle: every 4 years, not every 100.
	y := (d - d/1460 + d/36524 - d/146096) / 365
	d -= 365*y + y/4 - y/100
	m := (5*d + 2) / 153 // months from March have 153 days in each five
	day = d - (153*m+2)/5 + 1
	year = 400*cycle + y
	if m >= 10 {
		return year + 1, m - 9, day
	}
	return year, m + 3, day
}

// floorDiv divides towards minus infinity; the remainder is never negative.
func floorDiv(a, b int64) (quotient, remainder int64) {
	quotient, remainder = a/b, a%b
	if remainder < 0 {
		quotient--
		remainder += b
	}
	return quotient, remainder
}

func appendTwo(dst []byte, v int64) []byte {
	return append(dst, byte('0'+v/10), byte('0'+v%10))
}
