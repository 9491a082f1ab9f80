package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

// meetFrom connects to a server and gives the port that it came from.
func meetFrom(t testing.TB, to server) uint16 {
	t.Helper()
	fd, err := socket(to.to.Addr(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeNow(fd)
	if err := errors.Join(unix.Connect(fd, livetest.Sockaddr(to.to)), to.accept()); err != nil {
		t.Fatal(err)
	}
	return livetest.LocalPort(t, fd)
}

// TestKernelText compares rows of text, byte by byte, with what BCC's format strings
// make of the same connections.
func TestKernelText(t *testing.T) {
	livetest.EachModeInTurn(t, func(t *testing.T, mode string) {
		livetest.Network(t, func() {
			to := newServer(t, home, 200, 0)
			port := to.to.Port()
			if err := livetest.SetComm("a name"); err != nil {
				t.Fatal(err)
			}
			const ms = ` +[0-9]+\.[0-9]{3}`
			pid := os.Getpid()
			tests := []struct {
				args   string
				header string
				row    func(local uint16) string
			}{
				{"", "PID     COMM             IP SADDR            DADDR            DPORT",
					func(uint16) string {
						return fmt.Sprintf("%-7d %-16s %-2d %-16s %-16s %d", pid, "a name", 4, "127.0.0.1", "127.0.0.1", port)
					}},
				{"-L", "PID     COMM             IP SADDR            LPORT  DADDR            DPORT",
					func(local uint16) string {
						return fmt.Sprintf("%-7d %-16s %-2d %-16s %-6d %-16s %d", pid, "a name", 4, "127.0.0.1", local, "127.0.0.1", port)
					}},
				{"-t -U", "TIME(s)  UID   PID     COMM             IP SADDR            DADDR            DPORT",
					func(uint16) string {
						return `[0-9]+\.[0-9]{3} {2,5}` + fmt.Sprintf("%-5d %-7d %-16s %-2d %-16s %-16s %d", 0, pid, "a name", 4, "127.0.0.1", "127.0.0.1", port)
					}},
				{"-s --outcome", "PID     COMM             IP SADDR            LPORT  DADDR            DPORT  RESULT           LAT(ms) RETR",
					func(local uint16) string {
						return fmt.Sprintf("%-7d %-16s %-2d %-16s %-6d %-16s %-6d %-13s", pid, "a name", 4, "127.0.0.1", local, "127.0.0.1", port, "ok") + ms + ` +0`
					}},
			}
			if livetest.Guest() {
				tests = tests[1:2]
			}
			for _, test := range tests {
				args := append(strings.Fields(test.args), "--attach", mode, "--netns", livetest.NetworkPath())
				tool := livetest.Start(t, args...)
				tool.Ready()
				var want []string
				for range times {
					want = append(want, test.row(meetFrom(t, to)))
				}
				lines := tool.Stop().Over(t, 0).Lines()
				if len(lines) != times+1 || lines[0] != test.header {
					t.Fatalf("%s: %d lines, the first %q", test.args, len(lines), lines[0])
				}
				for i, line := range lines[1:] {
					if !regexp.MustCompile("^" + want[i] + "$").MatchString(line) {
						t.Errorf("%s: row %q, not %q", test.args, line, want[i])
					}
				}
			}
		})
	}, "--outcome")
}

// TestKernelAtOnce looks for the row of an attempt while that is under way: without
// --outcome it comes as the attempt is made, and with -L as soon as the port is known,
// which for a socket that does not block is when the call returns.
func TestKernelAtOnce(t *testing.T) {
	livetest.EachModeInTurn(t, func(t *testing.T, mode string) {
		livetest.Network(t, func() {
			s := &scene{t: t, mode: mode, want: map[uint16]map[string]int{}}
			to := s.full()
			for _, flag := range []string{"--print-uid", "-L"} {
				tool := livetest.Start(t, flag, "--attach", mode, "--netns", livetest.NetworkPath())
				tool.Ready()
				fd := s.nonblocking(to.to, 0)
				want := fmt.Sprint(to.to.Port())
				if flag == "-L" {
					want = fmt.Sprint(livetest.LocalPort(t, fd))
				}
				tool.WaitLine(func(line string) bool { return slices.Contains(strings.Fields(line), want) })
				closeNow(fd)
				if lines := tool.Stop().Over(t, 0).Lines(); len(lines) != 2 {
					t.Errorf("%s: %q", flag, lines)
				}
			}
		})
	}, "--outcome")
}

// TestKernelCounts counts by source, destination and port.
func TestKernelCounts(t *testing.T) {
	livetest.EachModeInTurn(t, func(t *testing.T, mode string) {
		livetest.Network(t, func() {
			to, closed := newServer(t, home, 5, 0), newServer(t, home6, -1, 0)
			tool := livetest.Start(t, "-c", "--attach", mode, "--netns", livetest.NetworkPath())
			tool.Ready()
			for range 2 * times {
				if err := to.meet(); err != nil {
					t.Fatal(err)
				}
			}
			for range times {
				if err := connect(closed.to); err != unix.ECONNREFUSED {
					t.Fatal(err)
				}
			}
			lines := tool.Stop().Over(t, 0).Lines()
			ms := ` +([0-9]+\.[0-9]{3})`
			want := []string{
				`^LADDR {20} RADDR {20} RPORT {16}CONNECTS     FAILED    P50\(ms\)    P99\(ms\)    MAX\(ms\)$`,
				fmt.Sprintf(`^127.0.0.1 {17}127.0.0.1 {17}%-20d %-10d %8d%s%s%s$`, to.to.Port(), 2*times, 0, ms, ms, ms),
				fmt.Sprintf(`^::1 {23}::1 {23}%-20d %-10d %8d +- +- +-$`, closed.to.Port(), times, times),
			}
			if len(lines) != len(want) {
				t.Fatalf("%q", lines)
			}
			for i := range want {
				if !regexp.MustCompile(want[i]).MatchString(lines[i]) {
					t.Errorf("line %q, not %s", lines[i], want[i])
				}
			}
		})
	}, "--outcome")
}

// TestKernelIntervals has tables written while connections are made: each of them is
// counted in one table.
func TestKernelIntervals(t *testing.T) {
	livetest.NeedOnce(t)
	livetest.Network(t, func() {
		to := newServer(t, home, 5, 0)
		tool := livetest.Start(t, "-c", "--json", "--netns", livetest.NetworkPath(), "0.1", "5")
		tool.Ready()
		made := 0
		for ended := false; !ended; made++ {
			if err := to.meet(); err != nil {
				t.Fatal(err)
			}
			select {
			case <-tool.Ended():
				ended = true
			default:
			}
		}
		type table struct {
			Time             string
			Kind             string
			Saddr, Daddr     string
			Dport            uint16
			Connects, Failed uint64
			P50              uint64 `json:"p50_ns"`
			P99              uint64 `json:"p99_ns"`
			Max              uint64 `json:"max_ns"`
		}
		sum := uint64(0)
		tables := livetest.Decode[table](t, tool.Wait().Over(t, 0).Lines())
		for _, c := range tables {
			sum += c.Connects
			if c.Kind != "count" || c.Dport != to.to.Port() || c.Failed != 0 || c.P50 == 0 || c.P50 > c.P99 || c.P99 > c.Max {
				t.Errorf("%+v", c)
			}
		}
		// Those of after the end are seen by nobody.
		if len(tables) > 5 || sum == 0 || sum > uint64(made) {
			t.Errorf("%d connections in %d tables, and %d were made", sum, len(tables), made)
		}
	})
}
