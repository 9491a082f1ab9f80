package main

import (
	"bytes"
	"regexp"
	"strconv"
)

// profile is measured by a thread that computes, at several rates.
var profile = scenario{
	tool: "profile", event: "sample", load: "burnload", comm: "burnload",
	about: "One load is %d stretches of work, of about a millisecond each, 32 frames deep.",
	arguments: func(b *bench, _ paths) []string {
		return []string{"-n", strconv.Itoa(b.scenario.count), "-cpu", strconv.Itoa(b.cpu), "-hold"}
	},
	rates:  []int{49, 99, 999},
	depths: []int{8, 32, 120}, // the kernel gives 127 frames
	own:    []way{{options: []string{"-f", "-F", hertzHere}}},
	peerOptions: map[string][]string{
		"libbpf": {"-f", "-F", hertzHere},
		// All CPUs but those that are idle, as the others do.
		"bpftrace": {"-e", "profile:hz:" + hertzHere + " /pid/ { @[ustack, kstack, comm] = count(); }"},
		"bcc":      {"-f", "-F", hertzHere},
	},
	unit: "ms", unitNS: 1e6, decimal: "%.0f",
}

// What stands for the rate and for a file of the tracer's own, in a tracer's command.
const (
	hertzHere = "{hertz}"
	fileHere  = "{file}"
)

// perfTracer records samples as the others take them, and has them written as text
// afterwards, which the others do themselves. It says nothing when it is ready, but takes
// a command then.
func perfTracer(root, path, version string) tracer {
	return tracer{
		key: "perf", name: "perf", version: version, root: root, control: true,
		argv: []string{
			path, "record", "-a", "-g", "-e", "cpu-clock", "-F", hertzHere, "-o", fileHere,
			"--control", "fd:" + strconv.Itoa(controlFD) + "," + strconv.Itoa(readyFD),
		},
		// Inlined functions, of which the others show none, take it a long time.
		after: []string{path, "script", "-i", fileHere, "--no-inline", "--show-lost-events"},
	}
}

// sampleRow is what a line of output says of the load.
type sampleRow struct {
	samples int64
	frames  int   // of all of them; 0 where the line does not tell
	missed  bool  // a stack of theirs is missing
	lost    int64 // it is about so many that are lost
}

// sampleLine reads a line of a tracer's output.
func sampleLine(key string, comm, line []byte) sampleRow {
	switch key {
	case "perf":
		return perfRow(comm, line)
	case "bpftrace":
		return mapRow(comm, line)
	}
	return foldedRow(comm, line)
}

// foldedRow reads a folded stack, "comm;root;...;leaf 5".
func foldedRow(comm, line []byte) sampleRow {
	i := bytes.LastIndexByte(line, ' ')
	if i < 0 {
		return sampleRow{}
	}
	n, err := strconv.ParseInt(string(line[i+1:]), 10, 64)
	stack, ok := bytes.CutPrefix(line[:i], comm)
	if err != nil || !ok || len(stack) > 0 && stack[0] != ';' {
		return sampleRow{}
	}
	return sampleRow{samples: n, frames: bytes.Count(stack, []byte(";")), missed: bytes.Contains(stack, []byte(";[Missed "))}
}

// mapRow reads the last line of an entry of bpftrace's map, ", comm]: 5".
func mapRow(comm, line []byte) sampleRow {
	key, value, _ := bytes.Cut(line, []byte("]: "))
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil || !bytes.HasSuffix(key, append([]byte(", "), comm...)) {
		return sampleRow{}
	}
	return sampleRow{samples: n}
}

// perfRow reads the first line of a sample, "comm pid [cpu] time: period event:", before
// its frames, or a line about losses.
func perfRow(comm, line []byte) sampleRow {
	if bytes.Contains(line, []byte(" PERF_RECORD_LOST")) {
		return sampleRow{lost: saidLost(line)}
	}
	rest, ok := bytes.CutPrefix(bytes.TrimLeft(line, " "), append(bytes.Clone(comm), ' '))
	if !ok || !bytes.HasSuffix(rest, []byte(" cpu-clock:")) && !bytes.Contains(rest, []byte(" cpu-clock: ")) {
		return sampleRow{}
	}
	return sampleRow{samples: 1}
}

// lostNumber is what each tracer says of its losses: gobcc "3 lost", libbpf-tools "3 stack
// traces could not be displayed", perf "PERF_RECORD_LOST lost 3". bpftrace tells of each
// sample that its map had no room for.
var lostNumber = regexp.MustCompile(`(\d+) lost\b|(\d+) stack traces could not|LOST(?:_SAMPLES)? lost (\d+)|WARNING: Map full`)

// saidLost adds up what a text says of losses.
func saidLost(text []byte) (sum int64) {
	for _, m := range lostNumber.FindAllSubmatch(text, -1) {
		n := int64(1)
		for _, digits := range m[1:] {
			if len(digits) > 0 {
				n, _ = strconv.ParseInt(string(digits), 10, 64) // they are digits
			}
		}
		sum += n
	}
	return sum
}
