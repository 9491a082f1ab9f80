package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobcc/gobcc/internal/common/output"
	"github.com/gobcc/gobcc/internal/common/tooltest"
	"github.com/gobcc/gobcc/internal/common/trace"
)

// to makes an attempt to an address.
func to(destination string, dport uint16, result uint8, latency time.Duration) *attempt {
	return from("192.0.2.1", 1, destination, dport, result, latency)
}

func from(source string, sport uint16, destination string, dport uint16, result uint8, latency time.Duration) *attempt {
	return &attempt{
		bpfAttempt: bpfAttempt{Sport: sport, Dport: dport, Result: result, LatencyNs: uint64(latency)},
		source:     netip.MustParseAddr(source), destination: netip.MustParseAddr(destination),
	}
}

// someCounts are of attempts of every result.
func someCounts(lport bool) *counts {
	c := &counts{}
	add := func(times int, a *attempt) {
		for range times {
			c.add(a, lport)
		}
	}
	add(1, to("203.0.113.1", 80, ok, time.Millisecond))
	add(20, to("203.0.113.2", 443, ok, 3*time.Millisecond))
	add(3, to("203.0.113.2", 443, failed, time.Second))
	add(1, to("203.0.113.2", 443, aborted, time.Second))
	add(2, to("203.0.113.2", 443, pending, 0))
	add(2, to("203.0.113.2", 80, failed, time.Second)) // the same number as the next two
	add(2, to("203.0.113.3", 80, pending, 0))
	add(2, to("203.0.113.10", 80, ok, 2500*time.Microsecond))
	add(4, from("2001:db8:1111:2222:3333:4444:5555:6666", 5, "2001:db8::1", 65535, ok, 123456*time.Millisecond))
	add(2, from("2001:db8:1111:2222:3333:4444:5555:6666", 6, "2001:db8::1", 65535, ok, 1))
	add(1, from("::", 0, "2001:db8::2", 1, failed, 0))
	early := from("::", 0, "203.0.113.4", 1, failed, 0)
	early.Marks = noSource
	add(1, early)
	return c
}

func TestCounts(t *testing.T) {
	var b strings.Builder
	for _, args := range []string{"-c", "-c -L", "-c 5"} {
		p := printerFor(t, strings.Fields(args)...)
		fmt.Fprintf(&b, "$ tcpconnect %s\n%s", args, p.appendTable(nil, someCounts(p.opts.lport).sorted()))
	}
	p := printerFor(t, "-c", "--json")
	b.WriteString("$ tcpconnect -c --json\n")
	for _, l := range someCounts(false).sorted() {
		b.Write(p.appendCountJSON(nil, l, 1_700_000_000_000_000_042))
	}
	tooltest.Golden(t, "counts.golden", b.String())
}

func TestEmptyTable(t *testing.T) {
	p := printerFor(t, "-c")
	if got := string(p.appendTable(nil, (&counts{}).sorted())); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "LADDR") {
		t.Errorf("got %q", got)
	}
}

// The columns that BCC has too are laid out by its format.
func TestTableIsBCCs(t *testing.T) {
	c := &counts{}
	for i := range 50 {
		for range 50 - i {
			c.add(to(fmt.Sprintf("203.0.113.%d", i), uint16(i*1000), ok, time.Millisecond), false)
		}
	}
	const format = "%-25s %-25s %-20s %-10s "
	lines := strings.Split(string(printerFor(t, "-c").appendTable(nil, c.sorted())), "\n")
	if want := fmt.Sprintf(format, "LADDR", "RADDR", "RPORT", "CONNECTS"); !strings.HasPrefix(lines[0], want) {
		t.Errorf("header\n%q not\n%q", lines[0], want)
	}
	for i, line := range lines[1 : len(lines)-1] {
		want := fmt.Sprintf(format, "192.0.2.1", fmt.Sprintf("203.0.113.%d", i), fmt.Sprint(i*1000), fmt.Sprint(50-i))
		if !strings.HasPrefix(line, want) {
			t.Errorf("line\n%q not\n%q", line, want)
		}
		if len(line) != len(lines[0]) {
			t.Errorf("%q is %d cells wide, and the header %d", line, len(line), len(lines[0]))
		}
	}
}

// What attempts are added in which order makes no difference.
func TestCountsAreSorted(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 8))
	var all []*attempt
	for range 2000 {
		a := from(fmt.Sprintf("192.0.2.%d", random.IntN(3)), uint16(random.IntN(2)), fmt.Sprintf("203.0.113.%d", random.IntN(3)),
			uint16(random.IntN(3)), uint8(random.IntN(4)), time.Duration(random.IntN(1000)))
		all = append(all, a)
	}
	p := printerFor(t, "-c", "-L")
	var want string
	for range 10 {
		c := &counts{}
		for _, a := range all {
			c.add(a, true)
		}
		lines := c.sorted()
		if !slices.IsSortedFunc(lines, func(a, b *counted) int { return int(b.attempts) - int(a.attempts) }) {
			t.Error("the most are not first")
		}
		got := string(p.appendTable(nil, lines))
		if want == "" {
			want = got
		}
		if got != want {
			t.Fatalf("another order gives\n%snot\n%s", got, want)
		}
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
}

// Attempts that differ in what is not shown have one line.
func TestWhatIsCountedTogether(t *testing.T) {
	for _, lport := range []bool{false, true} {
		c := &counts{}
		for port := range uint16(23) {
			a := from("192.0.2.1", port, "203.0.113.1", 80, ok, 1)
			a.Pid, a.Netns, a.Comm = uint32(port), uint32(port), comm(fmt.Sprint(port))
			c.add(a, lport)
		}
		lines, want := c.sorted(), 1
		if lport {
			want = 23
		}
		if len(lines) != want || lines[0].attempts != uint64(23/want) {
			t.Errorf("by local port: %v: %d lines, the first with %d", lport, len(lines), lines[0].attempts)
		}
	}
}

// Quantiles are those of established connections, at most 1/16 too much.
func TestLatenciesOfCounts(t *testing.T) {
	c := &counts{}
	for i := 1; i <= 1000; i++ {
		c.add(to("203.0.113.1", 80, ok, time.Duration(i)*time.Millisecond), false)
	}
	for _, result := range []uint8{failed, aborted, pending} {
		c.add(to("203.0.113.1", 80, result, time.Hour), false)
	}
	l := c.sorted()[0]
	if l.attempts != 1003 || l.failed != 2 || l.took.Count != 1000 {
		t.Errorf("%d attempts, %d failed, %d timed", l.attempts, l.failed, l.took.Count)
	}
	var o struct {
		Connects, Failed int
		P50              float64 `json:"p50_ns"`
		P99              float64 `json:"p99_ns"`
		Max              float64 `json:"max_ns"`
	}
	if err := json.Unmarshal(printerFor(t, "-c", "--json").appendCountJSON(nil, l, 0), &o); err != nil {
		t.Fatal(err)
	}
	near := func(got, want float64) bool { return got >= want && got <= want*17/16 }
	if o.Connects != 1003 || o.Failed != 2 || !near(o.P50, 500e6) || !near(o.P99, 990e6) || o.Max != 1000e6 {
		t.Errorf("%+v", o)
	}
}

// What a table has no room for is counted together, last, and nothing is lost.
func TestCountsAreBounded(t *testing.T) {
	c := &counts{}
	add := func(i int) {
		a := to("203.0.113.1", 80, ok, time.Millisecond)
		a.destination = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		c.add(a, false)
	}
	for i := range maxCounts + 10 {
		add(i)
	}
	add(0) // has its line already
	lines := c.sorted()
	last := lines[len(lines)-1]
	if len(lines) != maxCounts+1 || !last.others || last.attempts != 10 || last.took.Count != 10 {
		t.Errorf("%d lines, the last %+v", len(lines), last)
	}
	if lines[0].destinationText() != "10.0.0.0" || lines[0].attempts != 2 {
		t.Errorf("the first is %+v", lines[0])
	}
	var sum uint64
	for _, l := range lines {
		sum += l.attempts
	}
	if sum != maxCounts+11 {
		t.Errorf("%d attempts in all", sum)
	}
	text := string(printerFor(t, "-c").appendTable(nil, lines[len(lines)-1:]))
	if !strings.Contains(text, "\n<others>                  <others>                  - ") {
		t.Errorf("they are shown as\n%s", text)
	}
	object := string(printerFor(t, "-c", "--json").appendCountJSON(nil, last, 0))
	if !strings.Contains(object, `"saddr":null,"daddr":null,"dport":null,"connects":10,`) {
		t.Errorf("they are %s", object)
	}
}

// A table holds what came since the one before, and comes when it is due, once.
func TestTablesAreWrittenWhenDue(t *testing.T) {
	var b bytes.Buffer
	p, r := printerFor(t, "-c", "1000"), &trace.Run{Out: output.NewWriter(&b)}
	drain := func() string {
		t.Helper()
		b.Reset()
		if err := p.drained(r); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	late := func(d time.Duration) { p.next = time.Now().Add(-d) }
	attempted := func() {
		t.Helper()
		if err := p.handle(r, samples[0].record()); err != nil {
			t.Fatal(err)
		}
	}
	attempted()
	for range 2 { // the interval begins, and has not ended
		if text := drain(); text != "" {
			t.Fatalf("a table too early:\n%s", text)
		}
	}
	late(time.Second)
	if text := drain(); !strings.Contains(text, "198.51.100.7") || strings.Count(text, "LADDR") != 1 {
		t.Errorf("the first table is\n%s", text)
	}
	if text := drain(); text != "" {
		t.Errorf("another at once:\n%s", text)
	}
	late(2_500 * time.Second) // two are missed, which come no more
	if text := drain(); strings.Contains(text, "198.51.100.7") || strings.Count(text, "LADDR") != 1 {
		t.Errorf("the second table is\n%s", text)
	}
	if left := time.Until(p.next); left < 400*time.Second || left > 500*time.Second {
		t.Errorf("the next is due in %v", left)
	}
	if r.Shown != 1 {
		t.Errorf("%d attempts", r.Shown)
	}
}

func TestNoTablesWithoutAnInterval(t *testing.T) {
	var b bytes.Buffer
	for _, args := range []string{"-c", ""} {
		p, r := printerFor(t, strings.Fields(args)...), &trace.Run{Out: output.NewWriter(&b)}
		for range 3 {
			if err := p.drained(r); err != nil || b.Len() > 0 {
				t.Errorf("tcpconnect %s: %v, %q", args, err, b.String())
			}
		}
	}
}
