package main

import (
	"bytes"
	"strconv"
	"strings"
)

// tcpconnect is measured by a thread that connects to itself on the loopback
// interface: connect, accept and both closes, and as little else as can be.
var tcpconnect = scenario{
	tool: "tcpconnect", event: "connect", load: "connectload",
	about: "One load is %d connects on the loopback interface, each with its accept and the close of both ends.",
	arguments: func(b *bench, p paths) []string {
		return []string{
			"-port", p.present, "-parents", strconv.Itoa(b.parents), "-n", strconv.Itoa(b.scenario.count), "-cpu", strconv.Itoa(b.cpu),
		}
	},
	name: portOf,
	row:  connectRow,
	own: []way{
		{name: ""},
		{name: "-P (other ports)", options: []string{"-P", portOf("opening") + "-29999"}, none: true},
		{name: "--outcome", options: []string{"--outcome"}},
		{name: "-c 1", options: []string{"-c", "1"}},
		{name: namesWay, options: []string{namesWay}},
	},
	unit: "µs", unitNS: 1000, decimal: "%.2f",
	hard:          hard{title: "from 4 processes at once, on all CPUs", parents: 4},
	addedOfLibbpf: 0.7, cpuOfLibbpf: 0.7, addedOfBare: 0.03,
	needKprobes: true,
	packets:     namesWay,
}

// namesWay is the way of tcpconnect that looks at all packets.
const namesWay = "--domains"

// firstPort is the first of those that the load and the marks listen on: below those
// that the kernel gives to sockets without one.
const firstPort = 29001

// portOf gives the port that stands for a name in paths.
func portOf(name string) string {
	port := firstPort
	switch cpu, closing := strings.CutPrefix(name, "closing-"); {
	case closing:
		n, _ := strconv.Atoi(cpu)
		port += 3 + n
	case name == "opening":
		port += 2
	case name == "missing": // which nothing connects to
		port++
	}
	return strconv.Itoa(port)
}

// connectRow gives the remote port of a row of a connect to 127.0.0.x, and how many
// it stands for: one, or in the table of -c, which begins with an address, as many as
// the next column says.
func connectRow(line []byte) (port []byte, connects int64) {
	i := bytes.LastIndex(line, []byte("127.0.0."))
	if i < 0 {
		return nil, 0
	}
	_, rest := cutField(line[i:])
	port, rest = cutField(rest)
	if !bytes.HasPrefix(line, []byte("127.")) {
		return port, 1
	}
	count, _ := cutField(rest)
	connects, err := strconv.ParseInt(string(count), 10, 64)
	if err != nil {
		return nil, 0
	}
	return port, connects
}

// cutField takes the first word of a line off it.
func cutField(line []byte) (field, rest []byte) {
	line = bytes.TrimLeft(line, " ")
	if i := bytes.IndexByte(line, ' '); i >= 0 {
		return line[:i], line[i:]
	}
	return line, nil
}
