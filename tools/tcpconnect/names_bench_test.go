package main

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/attach"
	"github.com/gobcc/gobcc/internal/common/events"
	"github.com/gobcc/gobcc/internal/common/livetest"
)

// What a packet costs while the two programs are attached, beside no programs and
// beside two that do nothing: a datagram there and one back, each of which is sent
// once and received once. As root:
//
//	GOBCC_KERNEL_TESTS=1 go test -run - -bench RoundTrip -count 10 ./tools/tcpconnect
func BenchmarkRoundTrip(b *testing.B) {
	for _, traffic := range []struct {
		name string
		port uint16 // of the server, or 0 for any
	}{{"other", 0}, {"DNS", 53}} {
		b.Run(traffic.name+"/bare", func(b *testing.B) { roundTrips(b, traffic.port, nil) })
		b.Run(traffic.name+"/empty", func(b *testing.B) {
			livetest.Need(b)
			defer attachEmpty(b).Close()
			roundTrips(b, traffic.port, nil)
		})
		b.Run(traffic.name+"/names", func(b *testing.B) {
			livetest.Need(b)
			seen := openNames(b, events.DefaultPages)
			defer seen.set.Close()
			roundTrips(b, traffic.port, func() { seen.drain(b); seen.records = nil })
		})
	}
}

// roundTrips calls every, if there is one, off the clock.
func roundTrips(b *testing.B, port uint16, every func()) {
	livetest.Need(b)
	client, server := udpSocket(b, unix.AF_INET), udpSocket(b, unix.AF_INET)
	message := ask(b, 7, "www.example.com.", dnsmessage.TypeA)
	buf := make([]byte, 512)
	err := unix.Bind(server, &unix.SockaddrInet4{Addr: [4]byte{127, 77, 53, 9}, Port: int(port)})
	if err == nil {
		err = unix.Bind(client, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	if err != nil {
		b.Fatal(err)
	}
	for _, s := range [][2]int{{client, server}, {server, client}} {
		peer, err := unix.Getsockname(s[1])
		if err == nil {
			err = unix.Connect(s[0], peer)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	i := 0
	for b.Loop() {
		if i++; every != nil && i%4096 == 0 {
			b.StopTimer()
			every()
			b.StartTimer()
		}
		for _, s := range [][2]int{{client, server}, {server, client}} {
			if _, err := unix.Write(s[0], message); err != nil {
				b.Fatal(err)
			}
			if _, err := unix.Read(s[1], buf); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func attachEmpty(b *testing.B) *attach.Set {
	spec := &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{}, Maps: map[string]*ebpf.MapSpec{}}
	var names []string
	for name, at := range map[string]ebpf.AttachType{"none_ingress": ebpf.AttachCGroupInetIngress, "none_egress": ebpf.AttachCGroupInetEgress} {
		names = append(names, name)
		spec.Programs[name] = &ebpf.ProgramSpec{
			Name: name, Type: ebpf.CGroupSKB, AttachType: at, License: "Dual BSD/GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
		}
	}
	kernel, err := attach.Open("")
	if err != nil {
		b.Fatal(err)
	}
	set, err := kernel.Open(spec, []attach.Hook{{
		Name: "none", Choices: []attach.Choice{{Mode: attach.Auto, Programs: names, Needs: names}},
	}}, attach.Options{Mode: attach.Auto})
	if err != nil {
		b.Fatal(err)
	}
	return set
}

// What the tool itself pays for a lookup.
func BenchmarkNames(b *testing.B) {
	q := packet{marks: query, port: 4000, data: ask(b, 7, "www.example.com.", dnsmessage.TypeA)}.record()
	a := packet{at: 1, marks: connected, port: 4000, data: reply(b, 7, "www.example.com.", 60, "192.0.2.80", "192.0.2.81")}.record()
	n := newNames()
	b.ReportAllocs()
	for b.Loop() {
		if n.packet(q) != nil || n.packet(a) != nil {
			b.Fatal("a record was not taken")
		}
	}
}
