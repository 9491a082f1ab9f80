package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobcc/gobcc/internal/common/histogram"
)

// What a sample is in OpenMetrics 1.0, of those kinds that biolatency has.
var (
	sampleLine = regexp.MustCompile(`^([a-z_]+)\{(.*)\} ([0-9.]+)$`)
	labelText  = regexp.MustCompile(`^([a-z_]+)="((?:[^"\\\n]|\\[\\"n])*)"(,|$)`)
	leLabel    = regexp.MustCompile(`,le="([0-9.]+|\+Inf)"$`)
)

// checkOpenMetrics reads a text as strictly as the format's own text does, for
// histograms and counters.
func checkOpenMetrics(text string) error {
	body, ended := strings.CutSuffix(text, "# EOF\n")
	if !ended || strings.Contains("\n"+body, "\n# EOF\n") {
		return errors.New("it does not end with the only EOF")
	}
	if !utf8.ValidString(text) {
		return errors.New("it is no UTF-8")
	}
	types, said := map[string]string{}, map[string]bool{}
	family := ""
	series := map[string]float64{} // all samples
	type histogram struct {
		le, below, count float64
		counted, summed  bool
	}
	histograms := map[string]*histogram{}
	for line := range strings.Lines(body) {
		line = strings.TrimSuffix(line, "\n")
		if comment, is := strings.CutPrefix(line, "# "); is {
			words := strings.SplitN(comment, " ", 3)
			if len(words) < 3 || !slices.Contains([]string{"TYPE", "UNIT", "HELP"}, words[0]) || said[words[0]+words[1]] {
				return fmt.Errorf("%q is no metadata, or said twice", line)
			}
			said[words[0]+words[1]] = true
			if words[0] == "TYPE" {
				family, types[words[1]] = words[1], words[2]
			}
			if words[1] != family || words[0] == "UNIT" && !strings.HasSuffix(family, "_"+words[2]) {
				return fmt.Errorf("%q is of another family than %s", line, family)
			}
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil {
			return fmt.Errorf("%q is no sample", line)
		}
		value, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			return err
		}
		names := map[string]bool{}
		for rest := m[2]; rest != ""; {
			l := labelText.FindStringSubmatch(rest)
			if l == nil || names[l[1]] || l[3] == "," && len(l[0]) == len(rest) {
				return fmt.Errorf("%q are no labels, or some twice", m[2])
			}
			names[l[1]] = true
			rest = rest[len(l[0]):]
		}
		if _, twice := series[m[1]+m[2]]; twice {
			return fmt.Errorf("%q is there twice", line)
		}
		series[m[1]+m[2]] = value
		if types[family] == "counter" {
			if m[1] != family+"_total" {
				return fmt.Errorf("%q is no sample of counter %s", line, family)
			}
			continue
		}
		key := leLabel.ReplaceAllString(m[2], "")
		h := histograms[key]
		switch {
		case types[family] != "histogram":
			return fmt.Errorf("%q has no type", line)
		case m[1] == family+"_bucket":
			last := leLabel.FindStringSubmatch(m[2])
			if last == nil {
				return fmt.Errorf("%q has no limit", line)
			}
			le, err := strconv.ParseFloat(last[1], 64)
			if err != nil {
				return err
			}
			if h == nil {
				h = &histogram{le: -1}
				histograms[key] = h
			}
			if h.counted || le <= h.le || value < h.below || value != float64(uint64(value)) {
				return fmt.Errorf("%q is not in its place", line)
			}
			h.le, h.below = le, value
		case h == nil || h.le < 1e300 || names["le"]:
			return fmt.Errorf("%q comes before its last bucket", line)
		case m[1] == family+"_count":
			h.counted, h.count = true, value
			if value != h.below {
				return fmt.Errorf("%q is not what the buckets have", line)
			}
		case m[1] == family+"_sum" && h.counted:
			h.summed = true
		default:
			return fmt.Errorf("%q is no sample of histogram %s", line, family)
		}
	}
	for key, h := range histograms {
		if !h.counted || !h.summed {
			return fmt.Errorf("%s has no count or sum", key)
		}
	}
	return nil
}

// Whatever is counted, and whatever names there are, the file is right; and counters and
// buckets never fall from one to the next.
func TestOpenMetricsIsStrict(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	names := []string{"dd", "", `"`, `\`, "\n", `\n`, "\xff\xfe", "a b", "{}", `x",le="1`, "ünïcode", "\x1b[0m", "# EOF"}
	for _, args := range []string{"", "-m", "--split", "-Q --by disk", "--by disk,comm --split", "-m --by disk,op,cgroup,comm"} {
		p := printerOf(t, strings.Fields(args)...)
		m, err := newMetrics(filepath.Join(t.TempDir(), "x.prom"))
		if err != nil {
			t.Fatal(err)
		}
		before := map[string]float64{}
		for range 10 {
			var tab table
			for range r.IntN(8) {
				phases := make([]histogram.Counts, len(p.opts.phases()))
				var latencies []uint64
				for range 1 + r.IntN(100) {
					latencies = append(latencies, r.Uint64()>>(16+r.UintN(48)))
				}
				for i := range phases {
					phases[i] = histogram.Of(p.opts.unit(), latencies...)
				}
				if !p.opts.by.any() {
					tab.lines = []*line{lineOf("", 0, "", phases...)}
					continue
				}
				tab.lines = append(tab.lines, lineOf(names[r.IntN(len(names))], uint32(r.IntN(2)), names[r.IntN(len(names))], phases...))
			}
			for range r.IntN(3) {
				tab.failed = append(tab.failed, failed{[]byte(names[r.IntN(len(names))]), "EIO", r.Uint64N(5)})
			}
			if err := m.add(p, &tab); err != nil {
				t.Fatal(err)
			}
			text := string(m.appendText(nil, p.opts.phases(), p.opts.unit()))
			if err := checkOpenMetrics(text); err != nil {
				t.Fatalf("%s: %v in\n%s", args, err, text)
			}
			for line := range strings.Lines(text) {
				s := sampleLine.FindStringSubmatch(strings.TrimSpace(line))
				if s == nil {
					continue
				}
				value, err := strconv.ParseFloat(s[3], 64)
				if err != nil || value < before[s[1]+s[2]] {
					t.Fatalf("%s: %s was %v", args, line, before[s[1]+s[2]])
				}
				before[s[1]+s[2]] = value
			}
		}
		if len(before) < 30 {
			t.Errorf("%s: only %d samples", args, len(before))
		}
	}
}

// The check above finds what is wrong.
func TestStrictness(t *testing.T) {
	p := printerOf(t, "--by", "disk")
	m, err := newMetrics(filepath.Join(t.TempDir(), "x.prom"))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.add(p, sample(p)); err != nil {
		t.Fatal(err)
	}
	good := string(m.appendText(nil, p.opts.phases(), p.opts.unit()))
	if err := checkOpenMetrics(good); err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{"# EOF\n", ""}, {"# EOF\n", "# EOF\n# EOF\n"}, {"# TYPE biolatency_seconds histogram\n", ""}, {"_total{", "{"}, {`le="+Inf"`, `le="0.1"`},
		{"UNIT biolatency_seconds seconds", "UNIT biolatency_seconds ms"}, {`disk="`, `disk=`}, {`disk="`, `phase="`}, {"_sum{", "_total{"},
		{"s_count{", "s_counts{"}, {`\n`, `\m`}, {"} 40\n", "} 41\n"}, {"\n# TYPE biolatency_errors", "\n\n# TYPE biolatency_errors"},
	} {
		bad := strings.Replace(good, change[0], change[1], 1)
		if bad == good {
			t.Errorf("there is no %q to change", change[0])
		} else if checkOpenMetrics(bad) == nil {
			t.Errorf("%q instead of %q is found to be right", change[1], change[0])
		}
	}
}

// Any name makes a label that can be read back, as far as it is UTF-8.
func FuzzLabel(f *testing.F) {
	for _, s := range []string{"", "dd", `a"b\c`, "a\nb", "\xff", `\\n`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		l := labelText.FindStringSubmatch(label("comm", name))
		if l == nil || l[0] != label("comm", name) {
			t.Fatalf("%q is %s", name, label("comm", name))
		}
		back := strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\n`, "\n").Replace(l[2])
		if want := strings.ToValidUTF8(name, "\ufffd"); back != want {
			t.Errorf("%q is read back as %q", name, back)
		}
	})
}

// Keys are those that there are, or an error.
func FuzzKeys(f *testing.F) {
	for _, s := range []string{"disk", "disk,op", " cgroup ,comm", ",", "", "disc"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var k keys
		err := k.Set(s)
		for name := range strings.SplitSeq(s, ",") {
			if !slices.Contains(keyNames, strings.TrimSpace(name)) {
				if err == nil {
					t.Errorf("%q is no error, and %q no key", s, name)
				}
				return
			}
		}
		if err != nil || !k.any() {
			t.Errorf("%q: %v, %+v", s, err, k)
		}
	})
}
