package main

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gobcc/gobcc/internal/common/histogram"
	"github.com/gobcc/gobcc/internal/common/output"
)

// A heatmap has the latencies of the last intervals: time goes down, latency across.
type heatmap struct {
	shades      *shades
	unit        histogram.Unit
	phases      []string
	keyed       bool
	percentiles bool // beside each row

	panels    []panel    // of all that was seen so far, in their order
	intervals []interval // the last of them, the newest at the end
	heats     int        // in all of them
	powers    [2]int     // the first and the last with a latency so far
	printed   int        // lines for who has no terminal
}

// A panel is the map of one key and phase.
type panel struct {
	key   string // as a heading; "" if there are no keys
	phase int
}

// interval is what became of each panel in an interval; nil if nothing did.
type interval struct {
	end   time.Time
	heats map[panel]*heat
}

// heat are the latencies of a panel in an interval.
type heat struct {
	count          uint64
	p50, p99, most uint64 // in nanoseconds
	first          int    // bucket
	buckets        []uint64
}

// The most that is kept: a screen has fewer rows, and rows of many keys take memory.
const (
	mostIntervals = 512
	mostHeats     = 16_384
)

// leastPowers are shown at least, so that the scale does not change all the time.
const leastPowers = 8

func newHeatmap(o *options, s *shades) *heatmap {
	m := &heatmap{
		shades: s, unit: o.unit(), phases: o.phases(), keyed: o.by.any(), percentiles: o.percentiles,
		powers: [2]int{histogram.Powers, 0},
	}
	if !m.keyed { // then it is known what there will be
		for i := range m.phases {
			m.panels = append(m.panels, panel{"", i})
		}
	}
	return m
}

// title stands above a panel; "" if there is only one.
func (m *heatmap) title(of panel) string {
	switch {
	case len(m.phases) == 1:
		return of.key
	case of.key == "":
		return m.phases[of.phase]
	}
	return of.key + ", " + m.phases[of.phase]
}

// add adds an interval.
func (m *heatmap) add(p *printer, t *table) {
	counts := map[panel]*histogram.Counts{}
	for _, l := range t.lines {
		// A tab divides keys, and is nowhere else.
		key := string(bytes.ReplaceAll(p.appendHeading(nil, l), []byte{'\t'}, []byte(", ")))
		for i := range m.phases {
			of := panel{key, i}
			if counts[of] == nil { // else of a disk that has the name of one that is gone
				counts[of] = &histogram.Counts{}
			}
			counts[of].Add(&l.phases[i])
		}
	}
	now := interval{t.time, map[panel]*heat{}}
	for of, c := range counts {
		h := &heat{count: c.Count, p50: c.Quantile(0.5), p99: c.Quantile(0.99), most: c.Max}
		h.first, h.buckets = c.Span()
		now.heats[of] = h
		if !slices.Contains(m.panels, of) {
			m.panels = append(m.panels, of)
		}
		m.powers[0] = min(m.powers[0], h.first/histogram.PerPower)
		m.powers[1] = max(m.powers[1], (h.first+len(h.buckets)-1)/histogram.PerPower)
	}
	slices.SortFunc(m.panels, func(a, b panel) int {
		return cmp.Or(strings.Compare(a.key, b.key), cmp.Compare(a.phase, b.phase))
	})
	m.intervals, m.heats = append(m.intervals, now), m.heats+len(now.heats)
	for len(m.intervals) > mostIntervals || m.heats > mostHeats && len(m.intervals) > 1 {
		m.heats -= len(m.intervals[0].heats)
		m.intervals = slices.Delete(m.intervals, 0, 1)
	}
}

// A scale tells which latencies the cells of a row stand for.
type scale struct {
	unit   histogram.Unit
	first  int // power
	powers int
	cells  int // of each power
}

// scaleFor fills so many cells with powers of two: those that were seen so far, and what
// there is room for on both sides.
func (m *heatmap) scaleFor(cells int) scale {
	low, span := m.powers[0], m.powers[1]-m.powers[0]+1
	if span < 1 { // nothing was seen
		low, span = 1, 0
	}
	low -= max(leastPowers-span, 0) / 2
	span = max(span, leastPowers)
	s := scale{unit: m.unit, cells: histogram.PerPower}
	for s.cells > 1 && span*s.cells > cells {
		s.cells /= 2
	}
	s.powers = min(max(cells/s.cells, 1), histogram.Powers)
	s.first = min(max(low-max(s.powers-span, 0)/2, 0), histogram.Powers-s.powers)
	return s
}

// plainScale is that of lines that were written once and for all: up to two minutes.
func (m *heatmap) plainScale() scale { return scale{unit: m.unit, powers: 28, cells: 2} }

// width is how many cells there are.
func (s scale) width() int { return s.powers * s.cells }

// appendAxis appends the latencies at which powers begin, as many as have room.
func (s scale) appendAxis(dst []byte) []byte {
	const room = 6 // for a label and a space behind it
	every := 1
	for every*s.cells < room {
		every *= 2
	}
	start := len(dst)
	for power := range s.powers {
		// So that a microsecond has one.
		if p := s.first + power; (p+every-1)%every == 0 && s.width()-power*s.cells >= room-1 {
			dst = output.Pad(dst, start, power*s.cells)
			dst = append(dst, shortDuration(s.unit.Edge(p))...)
		}
	}
	return output.Pad(dst, start, s.width())
}

// row counts by cells. What is outside of the scale is in its first or last.
func (s scale) row(h *heat) []uint64 {
	row := make([]uint64, s.width())
	if h == nil {
		return row
	}
	for i, n := range h.buckets {
		cell := ((h.first + i) - s.first*histogram.PerPower) * s.cells / histogram.PerPower
		row[min(max(cell, 0), len(row)-1)] += n
	}
	return row
}

// shortDuration writes a time with two digits: "977ns", "1us", "1.1ms", "34s".
func shortDuration(ns uint64) string {
	for _, unit := range []struct {
		name  string
		nanos float64
	}{{"s", 1e9}, {"ms", 1e6}, {"us", 1e3}} {
		n := float64(ns) / unit.nanos
		switch {
		case n < 0.9995:
		case n < 9.95:
			return strings.TrimSuffix(fmt.Sprintf("%.1f", n), ".0") + unit.name
		default:
			return fmt.Sprintf("%.0f", n) + unit.name
		}
	}
	if ns == 0 {
		return "0"
	}
	return fmt.Sprintf("%dns", ns)
}

// The widths of what is beside the cells.
const (
	timeWidth       = 9
	countWidth      = 10
	percentileWidth = 8
)

// sides is how much is beside the cells.
func (m *heatmap) sides() int {
	if m.percentiles {
		return timeWidth + countWidth + 3*percentileWidth
	}
	return timeWidth + countWidth
}

// appendHead appends the line above the cells.
func (m *heatmap) appendHead(dst []byte, s scale) []byte {
	dst = s.appendAxis(fmt.Appendf(dst, "%-*s", timeWidth, "TIME"))
	dst = fmt.Appendf(dst, "%*s", countWidth, "COUNT")
	if m.percentiles {
		for _, name := range []string{"P50", "P99", "MAX"} {
			dst = fmt.Appendf(dst, "%*s", percentileWidth, name)
		}
	}
	return dst
}

// appendRow appends what an interval shows of a panel.
func (m *heatmap) appendRow(dst []byte, s scale, end time.Time, h *heat) []byte {
	dst = append(end.AppendFormat(dst, time.TimeOnly), ' ')
	dst = m.shades.appendCells(dst, s.row(h))
	if h == nil {
		h = &heat{}
	}
	dst = fmt.Appendf(dst, "%*d", countWidth, h.count)
	if m.percentiles && h.count > 0 {
		for _, ns := range []uint64{h.p50, h.p99, h.most} {
			dst = fmt.Appendf(dst, "%*s", percentileWidth, shortDuration(ns))
		}
	}
	return dst
}

// The rows of a picture that are no map, and how low a panel is at least, with its
// title.
const (
	frameRows   = 2
	leastHeight = 4
)

// picture draws the map in so many rows and columns; the notes stand at its end.
func (m *heatmap) picture(rows, columns int, notes []string) []string {
	s := m.scaleFor(columns - m.sides())
	notes = slices.Clone(notes[max(len(notes)-max(rows/4, 1), 0):])
	room := max(rows-frameRows-len(notes), 1)
	shown, hidden := m.fitting(room)
	if hidden > 0 {
		shown, hidden = m.fitting(room - 1)
		room--
		notes = append(notes, fmt.Sprintf("%d more have no room on this screen", hidden))
	}
	lines := []string{string(m.appendHead(nil, s))}
	for i, of := range shown {
		// The last ones are higher where it does not come out even.
		height := room*(i+1)/len(shown) - room*i/len(shown)
		if title := m.title(of); title != "" {
			lines = append(lines, title)
			height = max(height-1, 0) // on a screen of next to no rows
		}
		all := m.intervals[max(len(m.intervals)-height, 0):]
		for _, now := range all {
			lines = append(lines, string(m.appendRow(nil, s, now.end, now.heats[of])))
		}
		lines = append(lines, slices.Repeat([]string{""}, height-len(all))...)
	}
	for len(lines) < rows-1-len(notes) {
		lines = append(lines, "")
	}
	lines = append(lines, notes...)
	return append(lines, m.shades.legend(columns))
}

// fitting gives the panels that have room: those with the most requests, in the order of
// all.
func (m *heatmap) fitting(rows int) (shown []panel, hidden int) {
	n := max(rows/leastHeight, 1)
	if len(m.panels) <= n {
		return m.panels, 0
	}
	counts := map[panel]uint64{}
	for _, now := range m.intervals {
		for of, h := range now.heats {
			counts[of] += h.count
		}
	}
	most := slices.Clone(m.panels)
	slices.SortStableFunc(most, func(a, b panel) int { return cmp.Compare(counts[b], counts[a]) })
	shown = slices.DeleteFunc(slices.Clone(m.panels), func(of panel) bool { return !slices.Contains(most[:n], of) })
	return shown, len(m.panels) - n
}

// headEvery is after how many lines the head stands again for who has no terminal.
const headEvery = 24

// appendLines appends the newest interval for who has no terminal.
func (m *heatmap) appendLines(dst []byte) []byte {
	s, now := m.plainScale(), m.intervals[len(m.intervals)-1]
	for _, of := range m.panels {
		h := now.heats[of]
		if h == nil && m.keyed {
			continue
		}
		if m.printed%headEvery == 0 {
			dst = append(append(dst, m.shades.legend(s.width()+m.sides())...), '\n')
			dst = append(m.appendHead(dst, s), '\n')
		}
		m.printed++
		dst = m.appendRow(dst, s, now.end, h)
		if title := m.title(of); title != "" {
			dst = append(append(dst, "  "...), title...)
		}
		dst = append(dst, '\n')
	}
	return dst
}

// shades are how cells are drawn: the shade with number i if so many requests as
// limits[i], and more, are in it.
type shades struct {
	limits  []uint64
	cells   []string // the first is that of none
	colours []int    // of 256; the first is that of none
}

// The shades that there are, for terminals that can do more and more.
var (
	asciiShades = &shades{
		limits: []uint64{1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000},
		cells:  []string{" ", ".", ":", "-", "=", "+", "*", "#", "%", "@"},
	}
	blockShades = &shades{
		limits: []uint64{1, 10, 100, 1_000},
		cells:  []string{" ", "░", "▒", "▓", "█"},
	}
	colourShades = &shades{
		limits:  []uint64{1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000},
		colours: []int{16, 53, 90, 126, 161, 196, 202, 208, 214, 220, 226, 231},
	}
)

// shadesFor picks the shades by what the environment says of the terminal.
func shadesFor(terminal bool, getenv func(string) string) *shades {
	if terminal && getenv("NO_COLOR") == "" && (strings.Contains(getenv("TERM"), "256color") || getenv("COLORTERM") != "") {
		return colourShades
	}
	locale := cmp.Or(getenv("LC_ALL"), getenv("LC_CTYPE"), getenv("LANG"))
	if l := strings.ToLower(locale); strings.Contains(l, "utf-8") || strings.Contains(l, "utf8") {
		return blockShades
	}
	return asciiShades
}

func (s *shades) of(n uint64) int {
	shade, found := slices.BinarySearch(s.limits, n)
	if found {
		shade++
	}
	return shade
}

const resetColour = "\x1b[0m"

// appendCells appends a row of cells.
func (s *shades) appendCells(dst []byte, row []uint64) []byte {
	last := -1
	for _, n := range row {
		shade := s.of(n)
		if s.colours == nil {
			dst = append(dst, s.cells[shade]...)
			continue
		}
		if shade != last {
			dst = fmt.Appendf(dst, "\x1b[48;5;%dm", s.colours[shade])
			last = shade
		}
		dst = append(dst, ' ')
	}
	if last >= 0 {
		dst = append(dst, resetColour...)
	}
	return dst
}

// legend tells what the shades stand for, those that have room in so many columns.
func (s *shades) legend(columns int) string {
	text := []byte("Requests:")
	columns -= len(text)
	for _, n := range s.limits {
		limit := fmt.Sprintf("%d+", n)
		if n >= 1_000 {
			limit = fmt.Sprintf("%dk+", n/1_000)
		}
		if columns -= 2 + len(limit); columns < 0 {
			break
		}
		text = append(s.appendCells(append(text, ' '), []uint64{n}), limit...)
	}
	return string(text)
}
