package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gobcc/gobcc/internal/common/histogram"
	"github.com/gobcc/gobcc/internal/common/tooltest"
)

// mapOf is a heatmap of some intervals, as biolatency has it with these arguments.
func mapOf(t *testing.T, s *shades, args string, intervals int) *heatmap {
	t.Helper()
	p := printerOf(t, strings.Fields("--live "+args)...)
	m := newHeatmap(p.opts, s)
	start := time.Date(2026, 3, 1, 9, 5, 7, 42, time.UTC)
	for i := range intervals {
		if i == 1 { // in which nothing happened
			m.add(p, &table{time: start.Add(time.Second)})
			continue
		}
		tab := sample(p)
		tab.time = start.Add(time.Duration(i) * time.Second)
		m.add(p, tab)
	}
	return m
}

func TestPicture(t *testing.T) {
	var b strings.Builder
	for _, test := range []struct {
		args          string
		rows, columns int
		notes         []string
	}{
		{"", 8, 80, nil},
		{"-m", 8, 150, nil},
		{"", 5, 40, nil},
		{"--percentiles", 8, 80, []string{"biolatency: one", "biolatency: two", "biolatency: three"}},
		{"--split", 15, 80, nil},
		{"--by disk,comm", 24, 100, nil},
		{"--by disk,comm", 10, 80, []string{"biolatency: a remark"}},
	} {
		for _, s := range []*shades{asciiShades, blockShades} {
			picture := mapOf(t, s, test.args, 4).picture(test.rows, test.columns, test.notes)
			if len(picture) != test.rows {
				t.Errorf("%+v: %d rows", test, len(picture))
			}
			fmt.Fprintf(&b, "$ biolatency --live %s # on %d rows of %d columns\n%s\n", test.args, test.rows, test.columns, strings.Join(picture, "\n"))
		}
	}
	colours := mapOf(t, colourShades, "", 3).picture(8, 80, nil)
	fmt.Fprintf(&b, "$ biolatency --live # in colours\n%s\n", strings.ReplaceAll(strings.Join(colours, "\n"), "\x1b", "^["))
	tooltest.Golden(t, "pictures.golden", b.String())
}

// No picture is higher or wider than its screen, but for what names it.
func TestPictureFits(t *testing.T) {
	for _, args := range []string{"", "--split", "--percentiles --by disk"} {
		for _, intervals := range []int{0, 1, 5, 100} {
			m := mapOf(t, asciiShades, args, intervals)
			for rows := 6; rows < 60; rows += 3 {
				for columns := 60; columns < 300; columns += 7 {
					picture := m.picture(rows, columns, []string{"one", "two"})
					if len(picture) != rows {
						t.Fatalf("%s: %d rows on a screen of %d", args, len(picture), rows)
					}
					for _, line := range picture {
						if len(line) > columns {
							t.Fatalf("%s: %d columns on a screen of %d: %s", args, len(line), columns, line)
						}
					}
				}
			}
			// There is no sense in these, but no harm either.
			for _, size := range [][2]int{{0, 0}, {1, 1}, {2, 20}, {3, 1}} {
				m.picture(size[0], size[1], []string{"one"})
			}
		}
	}
}

func TestLines(t *testing.T) {
	var b strings.Builder
	for _, args := range []string{"", "-m", "--percentiles", "--split", "--by disk,comm"} {
		p := printerOf(t, strings.Fields("--live "+args)...)
		p.heatmap = newHeatmap(p.opts, blockShades)
		var text []byte
		for i := range 3 {
			tab := sample(p)
			if i == 1 {
				tab = &table{time: tab.time}
			}
			var err error
			if text, err = p.writeLive(text, tab); err != nil {
				t.Fatal(err)
			}
		}
		fmt.Fprintf(&b, "$ biolatency --live %s | cat\n%s", args, text)
	}
	tooltest.Golden(t, "lines.golden", b.String())
}

// The head stands again for those who look at what was written long ago.
func TestHeadAgain(t *testing.T) {
	p := printerOf(t, "--live")
	p.heatmap = newHeatmap(p.opts, asciiShades)
	var text []byte
	for range 2*headEvery + 1 {
		var err error
		if text, err = p.writeLive(text, &table{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(string(text), "TIME "); n != 3 {
		t.Errorf("there are %d heads", n)
	}
}

// Each latency is in the cell that its scale says, whatever the scale.
func TestScale(t *testing.T) {
	for _, unit := range []histogram.Unit{histogram.Micros, histogram.Millis} {
		for first := range histogram.Powers {
			for _, cells := range []int{1, 2, 4, 8, 16} {
				s := scale{unit: unit, first: first, powers: min(8, histogram.Powers-first), cells: cells}
				for power := range histogram.Powers {
					c := histogram.Of(unit, unit.Edge(power))
					h := &heat{}
					h.first, h.buckets = c.Span()
					want := min(max((power-first)*cells, 0), s.width()-1)
					for cell, n := range s.row(h) {
						if n == 1 != (cell == want) {
							t.Fatalf("%d ns are %d times in cell %d of %+v", unit.Edge(power), n, cell, s)
						}
					}
				}
			}
		}
	}
}

// The scale has all latencies that were seen.
func TestScaleFor(t *testing.T) {
	for low := range histogram.Powers {
		for high := low; high < histogram.Powers; high++ {
			m := &heatmap{unit: histogram.Micros, powers: [2]int{low, high}}
			for _, cells := range []int{36, 37, 61, 100, 1000} {
				s := m.scaleFor(cells)
				if s.first < 0 || s.first > low || s.first+s.powers <= high || s.first+s.powers > histogram.Powers || s.width() > cells {
					t.Fatalf("powers %d to %d in %d cells: %+v", low, high, cells, s)
				}
			}
		}
	}
}

func TestShortDuration(t *testing.T) {
	for ns, want := range map[uint64]string{
		0: "0", 1: "1ns", 977: "977ns", 1_000: "1us", 1_954: "2us", 4_096_000: "4.1ms", 9_960: "10us", 65_536_000: "66ms", 999_400: "999us",
		999_600: "1ms", 1_048_576_000: "1s", 999_999_999: "1s", 134_217_728_000: "134s", 34_359_738_368_000: "34360s",
	} {
		if got := shortDuration(ns); got != want {
			t.Errorf("%d ns are %s, not %s", ns, got, want)
		}
	}
}

func TestShades(t *testing.T) {
	for _, s := range []*shades{asciiShades, blockShades, colourShades} {
		if s.of(0) != 0 {
			t.Errorf("nothing has shade %d", s.of(0))
		}
		for i, n := range s.limits {
			if s.of(n) != i+1 || s.of(n-1) != i {
				t.Errorf("%d has shade %d, and one less %d", n, s.of(n), s.of(n-1))
			}
		}
		if n := len(s.limits) + 1; s.of(1<<60) != n-1 || len(s.cells) != n && len(s.colours) != n {
			t.Errorf("%d shades", n)
		}
	}
}

func TestShadesFor(t *testing.T) {
	for _, test := range []struct {
		terminal bool
		env      string
		want     *shades
	}{
		{true, "TERM=xterm-256color LANG=en_US.UTF-8", colourShades},
		{true, "TERM=xterm-256color NO_COLOR=1 LANG=en_US.UTF-8", blockShades},
		{false, "TERM=xterm-256color LANG=C.utf8", blockShades},
		{true, "TERM=linux COLORTERM=truecolor", colourShades},
		{true, "TERM=linux LC_CTYPE=de_DE.UTF-8", blockShades},
		{true, "TERM=linux LC_ALL=C LANG=de_DE.UTF-8", asciiShades},
		{false, "", asciiShades},
	} {
		env := map[string]string{}
		for _, s := range strings.Fields(test.env) {
			name, value, _ := strings.Cut(s, "=")
			env[name] = value
		}
		if got := shadesFor(test.terminal, func(name string) string { return env[name] }); got != test.want {
			t.Errorf("%v, %s: %+v", test.terminal, test.env, got)
		}
	}
}

// What is kept is bounded, whatever was counted.
func TestMapIsBounded(t *testing.T) {
	p := printerOf(t, "--live", "--by", "disk,comm")
	m := newHeatmap(p.opts, asciiShades)
	for range mostIntervals + 10 {
		m.add(p, &table{})
	}
	if len(m.intervals) != mostIntervals {
		t.Errorf("%d intervals are kept", len(m.intervals))
	}
	var many table
	for i := range 1000 {
		many.lines = append(many.lines, lineOf(fmt.Sprint("disk", i), 0, "", histogram.Of(histogram.Micros, 1_000)))
	}
	for range 2 * mostHeats / 1000 {
		m.add(p, &many)
	}
	if m.heats > mostHeats || len(m.intervals) != mostHeats/1000 {
		t.Errorf("%d rows of %d intervals are kept", m.heats, len(m.intervals))
	}
}
