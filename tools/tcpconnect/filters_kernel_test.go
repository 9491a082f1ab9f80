package main

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

// nobody is a user without any rights.
const nobody = 65534

// TestKernelFilters makes the same connections for each filter: by this process and by a
// child of another user, to two addresses and two ports over IPv4 and one over IPv6, from
// two source addresses. The filter must show all of some and none of the others.
func TestKernelFilters(t *testing.T) {
	livetest.Need(t)
	livetest.Network(t, func() {
		cgroup := livetest.Cgroup(t) // made first, so that it is removed last
		child := livetest.ChildWith(t, func(cmd *exec.Cmd) {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		}, connector)
		other := netip.MustParseAddr("127.0.0.2")
		servers := map[string]server{
			"a":     newServer(t, home, 100, 0),
			"b":     newServer(t, other, 100, 0),
			"c":     newServer(t, home6, 100, 0),
			"shut":  newServer(t, home, -1, 0), // refuses
			"child": newServer(t, home, 100, 0),
		}
		port := func(name string) string { return fmt.Sprint(servers[name].to.Port()) }
		cgroup.Enter(child.Pid())
		all := slices.Sorted(maps.Keys(servers))
		but := func(names ...string) []string {
			return slices.DeleteFunc(slices.Clone(all), func(n string) bool { return slices.Contains(names, n) })
		}
		self := fmt.Sprint(os.Getpid())
		pins := livetest.PinDir(t, t.TempDir())
		pin := func(name string, valueSize uint32, key uint64) string {
			path := filepath.Join(pins, name)
			livetest.PinMap(t, path, ebpf.MapSpec{Type: ebpf.Hash, KeySize: 8, ValueSize: valueSize, MaxEntries: 16}, key)
			return path
		}
		cgroups := pin("cgroups", 8, cgroup.ID)
		mounts, otherMounts := pin("mounts", 4, livetest.MountNamespace(t, unix.Gettid())), pin("others", 4, 1)
		tests := []struct {
			args string
			want []string
		}{
			{"", all},
			{"-P " + port("a"), []string{"a"}},
			{"-P " + port("a") + "," + port("b"), []string{"a", "b"}},
			{"-P !" + port("a"), but("a")},
			{"-P 1-65535,!" + port("a") + ",!" + port("shut"), but("a", "shut")},
			{"-P 1-9", nil},
			{"-4", but("c")},
			{"-6", []string{"c"}},
			{"-4 -6", all},
			{"--daddr 127.0.0.2", []string{"b"}},
			{"--daddr 127.0.0.0/8", but("c")},
			{"--daddr 127.0.0.0/8,!127.0.0.2", but("b", "c")},
			{"--daddr !127.0.0.0/8", []string{"c"}},
			{"--daddr ::1,127.0.0.2/32", []string{"b", "c"}},
			{"--daddr ::/0", []string{"c"}},
			{"--daddr !::/0", but("c")},
			{"--daddr 0.0.0.0/0", but("c")},
			{"--saddr 127.0.0.0/8", but("c")},
			{"--saddr !::1", but("c")},
			{"--saddr 192.0.2.0/24", nil},
			{"-x", []string{"shut"}},
			{"--min-ms 0.000001", all},
			{"--min-ms 1000000", nil},
			{"-p " + self, but("child")},
			{fmt.Sprintf("-p %d", child.Pid()), []string{"child"}},
			{fmt.Sprintf("-p %s,%d", self, child.Pid()), all},
			{"-u 0", but("child")},
			{fmt.Sprint("-u ", nobody), []string{"child"}},
			{"--cgroup " + cgroup.Path, []string{"child"}},
			{"--name nosuchname", nil},
			{"--cgroupmap " + cgroups, []string{"child"}},
			{"--mntnsmap " + mounts, all},
			{"--mntnsmap " + otherMounts, nil},
			{"--netns " + self, nil}, // the namespace that this process was started in
			{fmt.Sprintf("--netns %d", livetest.NetworkInode(t)), all},
		}
		if livetest.Guest() { // one that has something of everything
			tests = []struct {
				args string
				want []string
			}{{
				fmt.Sprintf("-4 -P 1-65535,!%s --daddr 127.0.0.0/8,!127.0.0.2 --saddr !192.0.2.0/24 -p %s -u 0", port("shut"), self), []string{"a"},
			}}
		}
		for _, test := range tests {
			args := append(strings.Fields(test.args), "--json")
			if !strings.Contains(test.args, "--netns") {
				args = append(args, "--netns", livetest.NetworkPath())
			}
			tool := livetest.Start(t, args...)
			tool.Ready()
			for _, name := range []string{"a", "b", "c", "shut"} {
				for range times {
					if err := servers[name].meet(); (err != nil) != (name == "shut") {
						t.Fatalf("connect to %s: %v", name, err)
					}
				}
			}
			if answer := child.Do(servers["child"].to.String(), fmt.Sprint(times)); answer != "ok" {
				t.Fatalf("the child's connect: %s", answer)
			}
			if err := servers["child"].drain(); err != nil {
				t.Fatal(err)
			}
			res := tool.Stop()
			got := map[string]int{}
			for _, r := range rows(t, res, 0) {
				for name, s := range servers {
					if s.to.Port() == r.Dport {
						got[name]++
					}
				}
				wantPID, wantUID := os.Getpid(), uint32(0)
				if r.Dport == servers["child"].to.Port() {
					wantPID, wantUID = child.Pid(), nobody
				}
				if r.PID != wantPID || r.UID != wantUID {
					t.Errorf("%s: process %d of user %d, not %d of %d: %+v", test.args, r.PID, r.UID, wantPID, wantUID, r)
				}
			}
			want := map[string]int{}
			for _, name := range test.want {
				want[name] = times
			}
			if !maps.Equal(got, want) {
				t.Errorf("tcpconnect %s: got %v, not %v: %s", test.args, got, want, res.Stderr)
			}
		}
	})
}

// TestKernelNoIPv6 has the tool take the kernel for one that was built without IPv6, by
// types that lack all of it.
func TestKernelNoIPv6(t *testing.T) {
	livetest.NeedOnce(t)
	types, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	var kept []btf.Type
	for typ, err := range types.All() {
		if err != nil {
			t.Fatal(err)
		}
		switch typ := typ.(type) {
		case *btf.Func:
			if typ.Name == "tcp_v6_connect" {
				continue
			}
		case *btf.Struct:
			if typ.Name == "sock_common" {
				typ.Members = slices.DeleteFunc(typ.Members, func(m btf.Member) bool { return strings.HasPrefix(m.Name, "skc_v6_") })
			}
		}
		kept = append(kept, typ)
	}
	builder, err := btf.NewBuilder(kept, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := builder.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "btf")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	livetest.Network(t, func() {
		to := newServer(t, home, 5, 0)
		tool := livetest.Start(t, "--json", "--btf", file, "--netns", livetest.NetworkPath())
		tool.Ready()
		for range times {
			if err := to.meet(); err != nil {
				t.Fatal(err)
			}
		}
		list := rows(t, tool.Stop(), 0)
		if len(list) != times {
			t.Errorf("%d rows", len(list))
		}
		for _, r := range list {
			if what := r.what(); what != "IPv4 127.0.0.1 to 127.0.0.1 by connect: ok" {
				t.Errorf("%s", what)
			}
		}
	})
}
