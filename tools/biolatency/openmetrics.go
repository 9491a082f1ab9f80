package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/gobcc/gobcc/internal/common/histogram"
)

// metrics are what was counted since the tool began, for a file of OpenMetrics.
type metrics struct {
	file   string
	lines  map[string][]histogram.Counts // by labels: a histogram for each phase
	errors map[string]uint64             // by labels
}

// newMetrics makes sure that the file can be written.
func newMetrics(file string) (*metrics, error) {
	m := &metrics{file, map[string][]histogram.Counts{}, map[string]uint64{}}
	if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("--openmetrics: %s is not a file", file)
	}
	return m, m.write(nil)
}

// metricsPowers are the powers of two of the unit that are told apart: up to 134
// seconds, or thousand seconds. There are always as many, so that the series stay.
const metricsPowers = 27

// add takes a table into account, and writes the file anew.
func (m *metrics) add(p *printer, t *table) error {
	for _, l := range t.lines {
		labels := m.labels(p, l)
		if m.lines[labels] == nil {
			m.lines[labels] = make([]histogram.Counts, len(l.phases))
		}
		for i := range l.phases {
			m.lines[labels][i].Add(&l.phases[i])
		}
	}
	for _, f := range t.failed {
		m.errors[label("disk", string(f.disk))+","+label("error", f.error)] += f.count
	}
	return m.write(m.appendText(nil, p.opts.phases(), p.opts.unit()))
}

// labels names what a line is for.
func (m *metrics) labels(p *printer, l *line) string {
	var all []string
	if p.opts.by.disk {
		all = append(all, label("disk", string(l.disk)))
	}
	if p.opts.by.op {
		all = append(all, label("op", strings.ToLower(p.operations.op(l.OpFlags))),
			label("flags", strings.ToLower(strings.Join(p.operations.set(l.OpFlags), ","))))
	}
	if p.opts.by.cgroup {
		all = append(all, label("cgroup_id", strconv.FormatUint(l.CgroupId, 10)), label("cgroup", p.cgroup(l.CgroupId)))
	}
	if p.opts.by.comm {
		all = append(all, label("comm", string(l.comm())))
	}
	return strings.Join(all, ",")
}

// label writes a label with its value, which must be UTF-8.
func label(name, value string) string {
	value = strings.ToValidUTF8(value, "\ufffd")
	return name + `="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(value) + `"`
}

// appendText appends all in the format of OpenMetrics 1.0.
func (m *metrics) appendText(dst []byte, phases []string, unit histogram.Unit) []byte {
	dst = append(dst, "# TYPE biolatency_seconds histogram\n# UNIT biolatency_seconds seconds\n"+
		"# HELP biolatency_seconds How long requests to disks took.\n"...)
	for _, labels := range slices.Sorted(maps.Keys(m.lines)) {
		for i, name := range phases {
			c := &m.lines[labels][i]
			all := label("phase", name)
			if labels != "" {
				all = labels + "," + all
			}
			below, powers := uint64(0), c.Powers()
			for power := 1; power <= metricsPowers; power++ {
				if power < len(powers) {
					below += powers[power]
				}
				// What is less than so many units is at most a nanosecond less.
				dst = fmt.Appendf(dst, "biolatency_seconds_bucket{%s,le=\"%s\"} %d\n", all, seconds(unit.Nanos<<power-1), below)
			}
			dst = fmt.Appendf(dst, "biolatency_seconds_bucket{%s,le=\"+Inf\"} %d\n", all, c.Count)
			dst = fmt.Appendf(dst, "biolatency_seconds_count{%s} %d\n", all, c.Count)
			dst = fmt.Appendf(dst, "biolatency_seconds_sum{%s} %s\n", all, seconds(c.Sum))
		}
	}
	dst = append(dst, "# TYPE biolatency_errors counter\n# HELP biolatency_errors Requests to disks that failed.\n"...)
	for _, labels := range slices.Sorted(maps.Keys(m.errors)) {
		dst = fmt.Appendf(dst, "biolatency_errors_total{%s} %d\n", labels, m.errors[labels])
	}
	return append(dst, "# EOF\n"...)
}

// seconds writes nanoseconds as seconds, exactly.
func seconds(ns uint64) string {
	text := strings.TrimRight(fmt.Sprintf("%d.%09d", ns/1_000_000_000, ns%1_000_000_000), "0")
	if strings.HasSuffix(text, ".") {
		text += "0"
	}
	return text
}

// write puts another file in the place of the one there is, at once. With no text it
// only tries whether that can be done.
func (m *metrics) write(text []byte) error {
	// Collectors take files that end in .prom.
	f, err := os.CreateTemp(filepath.Dir(m.file), "."+filepath.Base(m.file)+".*.tmp")
	if err != nil {
		return fmt.Errorf("--openmetrics: %w", err)
	}
	defer os.Remove(f.Name()) // it is gone if all went well
	defer f.Close()
	if text == nil {
		return nil
	}
	if _, err := f.Write(text); err != nil {
		return fmt.Errorf("--openmetrics: %w", err)
	}
	if err := f.Chmod(0o644); err != nil {
		return fmt.Errorf("--openmetrics: %w", err)
	}
	if err := os.Rename(f.Name(), m.file); err != nil {
		return fmt.Errorf("--openmetrics: %w", err)
	}
	return nil
}
