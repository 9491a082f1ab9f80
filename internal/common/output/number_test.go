package output

import (
	"fmt"
	"math"
	"testing"
	"time"
)

func TestIntegers(t *testing.T) {
	for _, v := range []int64{0, 1, -1, 42, 99999, 1234567, math.MaxInt64, math.MinInt64} {
		for _, width := range []int{0, 1, 6, -6, -20, 25} {
			if got, want := string(AppendInt([]byte("x"), v, width)), fmt.Sprintf("x%*d", width, v); got != want {
				t.Errorf("AppendInt(%d, %d) = %q, want %q", v, width, got, want)
			}
			if got, want := string(AppendUint([]byte("x"), uint64(v), width)), fmt.Sprintf("x%*d", width, uint64(v)); got != want {
				t.Errorf("AppendUint(%d, %d) = %q, want %q", uint64(v), width, got, want)
			}
		}
		for _, digits := range []int{0, 1, 4, 8, 24} {
			if got, want := string(AppendOctal([]byte("x"), uint64(v), digits)), fmt.Sprintf("x%0*o", digits, uint64(v)); got != want {
				t.Errorf("AppendOctal(%d, %d) = %q, want %q", uint64(v), digits, got, want)
			}
			if got, want := string(AppendHex([]byte("x"), uint64(v), digits)), fmt.Sprintf("x%0*x", digits, uint64(v)); got != want {
				t.Errorf("AppendHex(%d, %d) = %q, want %q", uint64(v), digits, got, want)
			}
		}
	}
}

func TestAppendDuration(t *testing.T) {
	for _, c := range []struct {
		ns              int64
		unit            time.Duration
		decimals, width int
		want            string
	}{
		{0, time.Second, 9, -14, "0.000000000   "},
		{1, time.Second, 9, -14, "0.000000001   "},
		{1_234_567_890, time.Second, 9, -14, "1.234567890   "},
		{123_456_789_012_345_678, time.Second, 9, -14, "123456789.012345678"},
		{-1, time.Second, 9, 0, "-0.000000001"},
		{-1, time.Second, 3, 0, "0.000"},
		{-1_500_000, time.Second, 3, 8, "  -0.002"},
		{1_499_999, time.Second, 3, 8, "   0.001"},
		{999_999_999, time.Second, 3, 0, "1.000"},
		{1499, time.Second, 0, 0, "0"},
		{1_500_000_000, time.Second, 0, 0, "2"},
		{12_345, time.Microsecond, 3, 0, "12.345"},
		{12_345, time.Microsecond, 2, 0, "12.35"},
		{12_345, time.Microsecond, 1, 8, "    12.3"},
		{12_345, time.Microsecond, 0, 0, "12"},
		{12_345, time.Microsecond, 6, 0, "12.345000"},
		{12_345_678, time.Millisecond, 2, 0, "12.35"},
		{7, time.Nanosecond, 0, 3, "  7"},
		{7, time.Nanosecond, 2, 0, "7.00"},
		{math.MaxInt64, time.Second, 9, 0, "9223372036.854775807"},
		{math.MinInt64, time.Second, 9, 0, "-9223372036.854775808"},
		{math.MaxInt64, time.Second, 0, 0, "9223372037"},
		{math.MaxInt64, time.Nanosecond, 9, 0, "9223372036854775807.000000000"},
	} {
		if got := string(AppendDuration([]byte("x"), c.ns, c.unit, c.decimals, c.width)); got != "x"+c.want {
			t.Errorf("AppendDuration(%d, %v, %d, %d) = %q, want %q", c.ns, c.unit, c.decimals, c.width, got[1:], c.want)
		}
	}
}
