package output

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

const rfc3339Nine = "2006-01-02T15:04:05.000000000Z07:00"

func TestAppendTime(t *testing.T) {
	instants := []int64{0, 1, -1, 999_999_999, 1e9, -1e9, math.MaxInt64, math.MinInt64}
	for year := 1678; year < 2262; year++ {
		for _, day := range []time.Time{
			time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC),
			time.Date(year, 2, 28, 23, 59, 59, 999_999_999, time.UTC),
			time.Date(year, 2, 29, 12, 0, 0, 0, time.UTC), // 1 March unless a leap year
			time.Date(year, 12, 31, 23, 59, 59, 999_999_999, time.UTC),
		} {
			instants = append(instants, day.UnixNano())
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		instants = append(instants, int64(random.Uint64()))
	}
	for _, ns := range instants {
		want := "x" + time.Unix(0, ns).UTC().Format(rfc3339Nine)
		if got := string(AppendTime([]byte("x"), ns)); got != want {
			t.Fatalf("AppendTime(%d) = %q, want %q", ns, got, want)
		}
	}
}

func BenchmarkAppendTime(b *testing.B) {
	b.ReportAllocs()
	dst := make([]byte, 0, 64)
	ns := int64(1_790_000_000_123_456_789)
	for b.Loop() {
		dst = AppendTime(dst[:0], ns)
		ns += 1_000_003
	}
}
