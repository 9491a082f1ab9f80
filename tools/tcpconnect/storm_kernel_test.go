package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

// serve accepts connections until the server is shut down.
func (s server) serve() {
	for s.accept() == nil {
	}
}

// TestKernelStorm makes as many connections as fast as they go: shown and lost are all
// there were, also with a ring buffer that is much too small.
func TestKernelStorm(t *testing.T) {
	livetest.EachModeInTurn(t, func(t *testing.T, mode string) {
		n := 10_000
		if livetest.Guest() {
			n = 500
		}
		for _, args := range []string{"", "--outcome", "--json -b 1"} {
			if livetest.Guest() && args == "" {
				continue
			}
			livetest.Network(t, func() {
				to := newServer(t, home, 1000, 0)
				var served sync.WaitGroup
				served.Go(to.serve)
				tool := livetest.Start(t, append(strings.Fields(args), "--attach", mode, "--netns", livetest.NetworkPath())...)
				tool.Ready()
				for range n {
					// The server may have closed a connection before the call returns.
					if err := connect(to.to); err != nil && err != unix.ECONNRESET {
						t.Fatal(err)
					}
				}
				// Ends accept(), since nothing else does for one that waits.
				if err := unix.Shutdown(to.fd, unix.SHUT_RD); err != nil {
					t.Fatal(err)
				}
				served.Wait()
				res := tool.Stop().Over(t, 0)
				shown := uint64(0)
				for _, line := range res.Lines() {
					if !strings.HasPrefix(line, "PID ") && !strings.Contains(line, `"kind":"lost"`) {
						shown++
					}
				}
				lost, possibly := res.Lost()
				livetest.Account(t, args, uint64(n), shown, lost, possibly)
				if lost > 0 && !strings.Contains(args, "-b 1") {
					t.Errorf("%q: %d of %d lost: %s", args, lost, n, res.Stderr)
				}
				t.Logf("%q: %d shown, %d lost, perhaps %d more", args, shown, lost, possibly)
			})
		}
	}, "--outcome")
}

// TestKernelRace has two processes connect to one server at the same time: each row has
// the process that made the attempt, whichever ran when the answer came.
func TestKernelRace(t *testing.T) {
	livetest.EachMode(t, func(t *testing.T, mode string) {
		livetest.Network(t, func() {
			n := 20 * times
			if livetest.Guest() {
				n = times
			}
			to, closed := newServer(t, home, 1000, 0), newServer(t, home, -1, 0)
			var served sync.WaitGroup
			served.Go(to.serve)
			children := []*livetest.ChildProcess{livetest.Child(t, connector), livetest.Child(t, connector)}
			tool := livetest.Start(t, "--json", "--attach", mode, "--netns", livetest.NetworkPath())
			tool.Ready()
			want := map[string]int{}
			for server, result := range map[netip.AddrPort]string{to.to: "ok", closed.to: "ECONNREFUSED"} {
				var done sync.WaitGroup
				for _, child := range children {
					want[fmt.Sprintf("%d: %s", child.Pid(), result)] = n
					done.Go(func() { child.Do(server.String(), fmt.Sprint(n)) })
				}
				done.Wait()
			}
			if err := unix.Shutdown(to.fd, unix.SHUT_RD); err != nil {
				t.Fatal(err)
			}
			served.Wait()
			res := tool.Stop()
			got := map[string]int{}
			for _, r := range rows(t, res, 0) {
				got[fmt.Sprintf("%d: %s", r.PID, r.Result)]++
			}
			lost, possibly := res.Lost()
			for what, n := range want {
				if got[what] != n && lost+possibly == 0 || got[what] > n {
					t.Errorf("%s: %d times instead of %d", what, got[what], n)
				}
				delete(got, what)
			}
			if len(got) > 0 {
				t.Errorf("attempts that nobody made: %v", got)
			}
		})
	}, "--outcome")
}

// TestKernelCommand traces a command and what it starts, and nothing else; its status is
// the tool's.
func TestKernelCommand(t *testing.T) {
	livetest.EachModeInTurn(t, func(t *testing.T, mode string) {
		livetest.Network(t, func() {
			to, closed := newServer(t, home, 100, 0), newServer(t, home, -1, 0)
			argv := livetest.RoleArgv(starter, to.to.String(), closed.to.String())
			// This comes from another process meanwhile.
			if err := connect(closed.to); err != unix.ECONNREFUSED {
				t.Fatal(err)
			}
			res := livetest.Run(t, append([]string{"--json", "--attach", mode, "--"}, argv...)...)
			// A command writes where the tool does.
			var lines []string
			for _, line := range res.Lines() {
				if strings.HasPrefix(line, "{") {
					lines = append(lines, line)
				}
			}
			counts, pids := map[string]int{}, map[int]bool{}
			for _, r := range livetest.Decode[row](t, lines) {
				if r.Kind == "connect" {
					counts[r.Result]++
					pids[r.PID] = true
				}
			}
			lost, possibly := res.Lost()
			if lost+possibly == 0 && (counts["ok"] != times || counts["ECONNREFUSED"] != times || len(pids) != 2 || pids[os.Getpid()]) {
				t.Errorf("%v by %v: %s", counts, pids, res.Stderr)
			}
		})
	}, "--outcome")
}

// starter is a command that connects, and whose child does too.
var starter = livetest.Role("starter", func(args []string) string {
	argv := livetest.RoleArgv(connector, args[1], fmt.Sprint(times))
	child := exec.Command(argv[0], argv[1:]...)
	if err := child.Start(); err != nil {
		return err.Error()
	}
	for range times {
		if err := connect(netip.MustParseAddrPort(args[0])); err != nil {
			return err.Error()
		}
	}
	if err := child.Wait(); err != nil {
		return err.Error()
	}
	return "" // it would stand among the tool's rows
})

// TestKernelLeaves checks that nothing stays loaded, and what the tool's maps take.
func TestKernelLeaves(t *testing.T) {
	livetest.EachModeInTurn(t, func(t *testing.T, mode string) {
		before := livetest.Snapshot(t)
		for _, args := range []string{"", "--json --domains --daddr 10.0.0.0/8 -P 1-10"} {
			tool := livetest.Start(t, append(strings.Fields(args), "--attach", mode)...)
			tool.Ready()
			tool.Stop().Over(t, 0)
		}
		livetest.NoLeak(t, before)
	}, "--outcome")
}
