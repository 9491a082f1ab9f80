package main

import (
	"os"
	"strconv"
)

// loadComm is the command name of the load of opens.
const loadComm = "openload"

// opensnoop is measured by opens of a file and of a missing one, in turn.
var opensnoop = scenario{
	tool: "opensnoop", event: "open", load: loadComm, comm: loadComm,
	about: "One load is %d opens, half of them of a missing file.",
	arguments: func(b *bench, _ paths) []string {
		return []string{"-cpu", strconv.Itoa(b.cpu), "-n", strconv.Itoa(b.scenario.count / 2), b.dir}
	},
	prepare: func(p paths) error { return os.WriteFile(p.present, nil, 0o644) },
	// Tracepoints are what the peers use.
	own: []way{
		{name: "", options: []string{"--attach", "tracepoint"}},
		{name: "-n " + loadComm, options: []string{"--attach", "tracepoint", "-n", loadComm}},
	},
	unit: "ns", unitNS: 1, decimal: "%.0f",
	hard:          hard{title: "every CPU kept busy by a spinning thread", spin: true},
	addedOfLibbpf: 0.6, cpuOfLibbpf: 0.5,
}
