package main

import (
	"bufio"
	"cmp"
	_ "embed"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

//go:embed flame/flame.css
var flameStyle string

//go:embed flame/flame.js
var flameScript string

const (
	// svgWidth is the width in pixels where nothing else says how wide the picture is.
	svgWidth = 1200
	// svgLeast is how many pixels wide a frame is at least at that width; what is narrower
	// is drawn together.
	svgLeast = 0.1
	// svgMost is how many frames are drawn at most: browsers are slow with more. To keep
	// to it, wider ones are drawn together too.
	svgMost = 30_000

	// svgLabelled is how many pixels wide a frame is that has room for some of its name.
	svgLabelled = 24

	svgRow = 18  // height of a frame
	svgTop = 130 // height of what is above the frames
	svgEnd = 36  // and below
)

// writeFlameGraph writes a flame graph that explains itself: it needs no other file, and works
// where there is no network.
func writeFlameGraph(w io.Writer, r *report) error {
	root := flameOf(r)
	least := max(uint64(float64(root.count)*svgLeast/svgWidth), 1)
	small := root.merge(least)
	for root.size() > svgMost {
		least *= 2
		small += root.merge(least)
	}
	b := &svgWriter{Writer: bufio.NewWriterSize(w, 64<<10), total: max(root.count, 1), files: map[string]int{}}
	b.document(r, root, small, float64(least)/float64(b.total))
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write the flame graph: %w", err)
	}
	return nil
}

// flame is a box of the graph: a function where it was called from the same functions.
type flame struct {
	flameKey
	count    uint64
	children []*flame
	byKey    map[flameKey]*flame
	merged   int // how many frames it stands for, if it is not one frame
}

// flameKey tells boxes of one parent apart.
type flameKey struct {
	name  string // escaped
	class flameClass
	file  string
}

// flameClass is what a box is coloured by.
type flameClass byte

const (
	flameAll     flameClass = 'a'
	flameProcess flameClass = 'p'
	flameUser    flameClass = 'u'
	flameKernel  flameClass = 'k'
	flameJIT     flameClass = 'j'
	flameInlined flameClass = 'i'
	flameUnknown flameClass = 'x'
	flameSmall   flameClass = 'm'
)

func (f *flame) child(key flameKey) *flame {
	c := f.byKey[key]
	if c == nil {
		if f.byKey == nil {
			f.byKey = map[flameKey]*flame{}
		}
		c = &flame{flameKey: key}
		f.byKey[key] = c
		f.children = append(f.children, c)
	}
	return c
}

// flameOf makes the graph of a report, in an order that depends on nothing but names.
func flameOf(r *report) *flame {
	root := &flame{flameKey: flameKey{name: "all", class: flameAll}}
	for _, s := range r.Stacks {
		root.count += s.Count
		at := root.child(flameKey{name: escaped(s.Comm), class: flameProcess})
		at.count += s.Count
		for _, frames := range [][]*frame{s.user(), s.Kernel} {
			for _, f := range slices.Backward(frames) {
				file := ""
				if f.File != nil {
					file = f.File.Path
				}
				for i, l := range slices.Backward(f.Lines) {
					class := [...]flameClass{flameUser, flameKernel, flameJIT, flameUnknown}[min(f.Kind, kindUnknown)]
					if i < len(f.Lines)-1 && class != flameKernel {
						class = flameInlined
					}
					at = at.child(flameKey{escaped(l.Function), class, file})
					at.count += s.Count
				}
			}
		}
	}
	root.sort()
	return root
}

func (f *flame) sort() {
	slices.SortFunc(f.children, func(a, b *flame) int {
		return cmp.Or(strings.Compare(a.name, b.name), cmp.Compare(a.class, b.class), strings.Compare(a.file, b.file))
	})
	for _, c := range f.children {
		c.sort()
	}
}

// merge puts one box in place of those that have a parent in common and fewer samples
// than least, with all that they call. It says how many frames are gone.
func (f *flame) merge(least uint64) (gone int) {
	var kept, narrow []*flame
	for _, c := range f.children {
		if c.count >= least && c.merged == 0 {
			gone += c.merge(least)
			kept = append(kept, c)
		} else {
			narrow = append(narrow, c)
		}
	}
	// A single frame is as well drawn as what would stand for it.
	if len(narrow) > 1 || len(narrow) == 1 && len(narrow[0].children) > 0 {
		small := &flame{flameKey: flameKey{class: flameSmall}}
		for _, c := range narrow {
			drawn, merged := c.frames()
			gone += drawn
			small.merged += drawn + merged
			small.count += c.count
		}
		small.name = fmt.Sprintf("[%d small frames]", small.merged)
		narrow = []*flame{small}
	}
	f.children = append(kept, narrow...)
	return gone
}

// frames counts the frames from f on: those that are drawn each by itself, and those that
// are not.
func (f *flame) frames() (drawn, merged int) {
	if f.merged > 0 {
		return 0, f.merged // that one calls no other
	}
	drawn = 1
	for _, c := range f.children {
		d, m := c.frames()
		drawn += d
		merged += m
	}
	return drawn, merged
}

// size counts boxes.
func (f *flame) size() int {
	n := 1
	for _, c := range f.children {
		n += c.size()
	}
	return n
}

func (f *flame) depth() int {
	deepest := 0
	for _, c := range f.children {
		deepest = max(deepest, c.depth())
	}
	return 1 + deepest
}

// svgWriter writes the picture.
type svgWriter struct {
	*bufio.Writer
	total uint64
	files map[string]int // by path
	names []string
}

func (b *svgWriter) document(r *report, root *flame, small int, least float64) {
	title := escaped(strings.Join(r.Command, " "))
	height := svgTop + root.depth()*svgRow + svgEnd
	fmt.Fprintf(b, `<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" role="application" aria-label="%s" data-total="%d" data-depth="%d" data-row="%d" data-top="%d">
`, svgWidth, height, text(title), b.total, root.depth(), svgRow, svgTop)
	fmt.Fprintf(b, "<style>%s</style>\n", flameStyle)
	b.WriteString(`<rect class="page" width="100%" height="100%"/>` + "\n")
	fmt.Fprintf(b, `<text class="title" x="10" y="26">%s</text>`+"\n", text(title))
	fmt.Fprintf(b, `<text class="about" x="10" y="44">%s</text>`+"\n", text(escaped(sampled(r))))
	b.legend()
	b.WriteString(`<g id="controls"/>` + "\n" + `<g id="frames">` + "\n")
	b.box(root, 0, 0)
	b.WriteString("</g>\n")
	note := ""
	if small > 0 {
		note = fmt.Sprintf("%d frames of less than %.3g %% each are drawn together as small frames.", small, 100*least)
	}
	fmt.Fprintf(b, `<text id="details" class="details" x="10" y="120" aria-live="polite"/>`+"\n")
	fmt.Fprintf(b, `<text id="note" class="about" x="10" y="%d">%s</text>`+"\n", height-12, text(note))
	b.WriteString("<metadata>")
	for _, name := range b.names {
		fmt.Fprintf(b, "<f>%s</f>", text(name))
	}
	b.WriteString("</metadata>\n")
	fmt.Fprintf(b, "<script><![CDATA[\n%s]]></script>\n</svg>\n", flameScript)
}

// sampled says what the picture is of.
func sampled(r *report) string {
	t := &r.Totals
	s := grouped(t.Shown) + " samples"
	lost := uint64(0)
	for _, n := range t.Lost {
		lost += n
	}
	if lost > 0 {
		s += ", " + grouped(lost) + " lost"
	}
	s += fmt.Sprintf("; %s on %d CPUs", r.Event, r.CPUs)
	if r.Hertz > 0 {
		s += fmt.Sprintf(" at %d Hz", r.Hertz)
	}
	return s + fmt.Sprintf(" for %.3g s from %s", r.Duration.Seconds(), r.Start.UTC().Format("2006-01-02 15:04:05 UTC"))
}

// grouped writes a number with its thousands apart.
func grouped(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func (b *svgWriter) legend() {
	b.WriteString(`<g class="legend">`)
	x := 10
	for _, l := range []struct {
		class flameClass
		name  string
	}{{flameKernel, "kernel"}, {flameUser, "user"}, {flameInlined, "inlined"}, {flameJIT, "JIT"}, {flameUnknown, "unknown"}} {
		fmt.Fprintf(b, `<rect class="%c" x="%d" y="53" width="12" height="12"/><text x="%d" y="63">%s</text>`, l.class, x, x+17, l.name)
		x += 17 + 8*len(l.name) + 16
	}
	b.WriteString("</g>\n")
}

// box writes a box and those above it. One with room for its name is a picture in the
// picture, so that what is too long of the name is cut off, however wide the box is. The
// others are nearly all: each is as little as can be.
func (b *svgWriter) box(f *flame, start uint64, depth int) {
	wide := float64(f.count)/float64(b.total)*svgWidth >= svgLabelled
	element, height := "rect", svgRow-1
	if wide {
		element, height = "svg", svgRow
	}
	fmt.Fprintf(b, `<%s class="%c s%d" x="%s%%" y="%d" width="%s%%" height="%d" data-s="%d" data-n="%d"`,
		element, f.class, shade(f.name), b.share(start), svgTop+depth*svgRow, b.share(f.count), height, start, f.count)
	if f.file != "" {
		i, ok := b.files[f.file]
		if !ok {
			i = len(b.names)
			b.files[f.file] = i
			b.names = append(b.names, escaped(f.file))
		}
		fmt.Fprintf(b, ` data-f="%d"`, i)
	}
	if wide {
		fmt.Fprintf(b, `><rect width="100%%" height="%d"/><text x="4" y="13">%s</text></svg>`+"\n", svgRow-1, text(f.name))
	} else {
		fmt.Fprintf(b, ` data-t="%s"/>`+"\n", text(f.name))
	}
	for _, c := range f.children {
		b.box(c, start, depth+1)
		start += c.count
	}
}

func (b *svgWriter) share(n uint64) []byte {
	return strconv.AppendFloat(nil, float64(n)/float64(b.total)*100, 'f', 4, 64)
}

// shade varies the colour of a name a little, so that neighbours differ and equal names
// are equal.
func shade(name string) int {
	sum := uint32(0)
	for i := range len(name) {
		sum = sum*31 + uint32(name[i])
	}
	return int(sum>>4) % 4
}

// text writes for XML what is escaped already: no control characters are in it, which XML
// has no way to write.
func text(s string) string {
	var b strings.Builder
	// Writing to a Builder can't fail.
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}
