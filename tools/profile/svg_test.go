package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/gobcc/gobcc/internal/common/symbols"
)

func svgOf(t *testing.T, r *report) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := writeFlameGraph(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSVG(t *testing.T) { golden(t, "report.svg", svgOf(t, testReport())) }

// box is a box of a picture.
type box struct {
	name                string
	start, count, depth uint64
}

// boxes reads a picture, and checks that each box is within the one below it, that those
// beside each other don't overlap, and that nothing but what is ours is in it.
func boxes(t *testing.T, svg []byte) []box {
	t.Helper()
	var all []box
	var open []box
	end := map[uint64]uint64{} // by depth
	d := xml.NewDecoder(bytes.NewReader(svg))
	inFrames, inText := false, false
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			attr := map[string]string{}
			for _, a := range e.Attr {
				attr[a.Name.Local] = a.Value
				if strings.HasPrefix(strings.ToLower(a.Name.Local), "on") || strings.Contains(a.Value, "://") && a.Name.Local != "xmlns" {
					t.Errorf("<%s> has %s=%q", e.Name.Local, a.Name.Local, a.Value)
				}
			}
			inFrames = inFrames || attr["id"] == "frames"
			inText = inFrames && e.Name.Local == "text"
			if !inFrames || attr["data-n"] == "" {
				continue
			}
			number := func(key string) uint64 {
				n, err := strconv.ParseUint(attr[key], 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			b := box{name: attr["data-t"], start: number("data-s"), count: number("data-n"), depth: (number("y") - svgTop) / svgRow}
			open = open[:b.depth]
			if b.depth > 0 {
				if p := open[b.depth-1]; b.start < p.start || b.start+b.count > p.start+p.count {
					t.Errorf("%+v is not in %+v", b, p)
				}
			}
			if b.start < end[b.depth] {
				t.Errorf("%+v begins before the one beside it ends", b)
			}
			end[b.depth] = b.start + b.count
			open = append(open, b)
			all = append(all, b)
		case xml.CharData:
			if inText {
				all[len(all)-1].name += string(e)
			}
		case xml.EndElement:
			inText = false
			if e.Name.Local == "g" {
				inFrames = false
			}
		}
	}
}

func TestSVGBoxes(t *testing.T) {
	r := testReport()
	got := map[string]uint64{}
	for _, b := range boxes(t, svgOf(t, r)) {
		got[b.name] += b.count
	}
	for name, want := range map[string]uint64{
		"all": r.Totals.Shown, "server": 5234, `C2 \xffCompiler`: 5, `Lcom/example/Main;.run\n]]></script>`: 8, "vfs_read": 1234,
		"std::vector<int>::push_back": 5235, `operator&&(A&, "B")`: 5235,
	} {
		if got[name] != want {
			t.Errorf("%s has %d samples, not %d", name, got[name], want)
		}
	}
}

// TestSVGNothing draws what has no samples.
func TestSVGNothing(t *testing.T) {
	if got := boxes(t, svgOf(t, &report{})); len(got) != 1 || got[0].name != "all" {
		t.Errorf("%v", got)
	}
}

// TestSVGSmall draws more frames than there is room for.
func TestSVGSmall(t *testing.T) {
	p := &process{PID: 1, Comm: "many"}
	r := &report{}
	for i := range 100_000 {
		f := func(name string) *frame { return &frame{Lines: []symbols.Line{line(name)}} }
		r.Stacks = append(r.Stacks, &stack{Process: p, Comm: "many", Count: 1 + uint64(i%3),
			User: []*frame{f("leaf " + strconv.Itoa(i)), f("caller " + strconv.Itoa(i/7)), f("root " + strconv.Itoa(i/70_000))}})
		r.Totals.Shown += 1 + uint64(i%3)
	}
	svg := svgOf(t, r)
	all := boxes(t, svg)
	if len(all) > svgMost || len(svg) > 6<<20 {
		t.Errorf("%d boxes in %d bytes", len(all), len(svg))
	}
	sum, small := uint64(0), 0
	for _, b := range all {
		n := 0
		if _, err := fmt.Sscanf(b.name, "[%d small frame", &n); err == nil {
			small += n
			sum += b.count
		}
	}
	if small != 100_000+14_286 || sum != r.Totals.Shown {
		t.Errorf("%d small frames with %d samples of %d", small, sum, r.Totals.Shown)
	}
	if !bytes.Contains(svg, []byte("114286 frames of less than ")) {
		t.Error("it is not said")
	}
}

// FuzzSVG draws what is named by others.
func FuzzSVG(f *testing.F) {
	f.Add("]]></script>", "<a onload='x'>&\x00\xff")
	f.Fuzz(func(t *testing.T, comm, function string) {
		r := &report{Command: []string{comm}, Stacks: []*stack{{Process: &process{}, Comm: comm, Count: 23,
			User: []*frame{{File: &mapped{Path: function}, Lines: []symbols.Line{line(function)}}}}}}
		got := boxes(t, svgOf(t, r))
		if len(got) != 3 || got[1].name != escaped(comm) || got[2].name != escaped(function) || got[2].count != 23 {
			t.Errorf("%+v", got)
		}
	})
}

// TestSVGBrowser has a browser use the picture, with mouse and keyboard.
func TestSVGBrowser(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Skipf("SKIPPED: no browser to look at the picture: %v (Debian's chromium is one)", err)
	}
	driver, err := os.ReadFile("testdata/drive.js")
	if err != nil {
		t.Fatal(err)
	}
	svg, end := bytes.CutSuffix(svgOf(t, testReport()), []byte("</svg>\n"))
	if !end {
		t.Fatal("the picture has no end")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "driven.svg")
	driven := fmt.Sprintf("%s<script><![CDATA[\n%s]]></script></svg>\n", svg, driver)
	if err := os.WriteFile(path, []byte(driven), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"--headless", "--disable-gpu", "--window-size=1200,500", "--user-data-dir=" + filepath.Join(dir, "user"), "--dump-dom", "file://" + path}
	if os.Geteuid() == 0 {
		args = append(args, "--no-sandbox") // which it refuses to make as root
	}
	cmd := exec.Command(browser, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", browser, err, stderr.String())
	}
	m := regexp.MustCompile(`data-wrong="([^"]*)"`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("the picture was not used:\n%.2000s\n%s", out, stderr.String())
	}
	if wrong := html.UnescapeString(string(m[1])); wrong != "nothing" {
		t.Error(wrong)
	}
}
