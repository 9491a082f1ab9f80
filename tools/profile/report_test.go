package main

import (
	"testing"
	"time"

	"github.com/gobcc/gobcc/internal/common/symbols"
	"github.com/gobcc/gobcc/internal/common/tooltest"
)

// golden compares what was written with a file.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	tooltest.Golden(t, name, string(got))
}

func line(name string) symbols.Line { return symbols.Line{Function: name, Linkage: name} }

// testReport is a report with all that there can be in one, and with what is hard to
// write: names that mean something to those who read the output.
func testReport() *report {
	kernel := &mapped{Path: "[kernel.kallsyms]", Start: 0xffffffff81000000, Limit: 0xffffffff82000000, Symbols: true}
	module := &mapped{Path: "[nf_tables]", Start: 0xffffffffc0000000, Limit: 0xffffffffc0010000, Symbols: true}
	program := &mapped{Path: "/opt/my app/serve<r>", BuildID: "0123456789abcdef0123456789abcdef01234567", Start: 0x1000, Limit: 0x9000, Offset: 0x1000,
		Symbols: true, SourceFiles: true, LineNumbers: true, Inlining: true}
	library := &mapped{Path: "/usr/lib/libfoo.so.1", BuildID: "cafe", Start: 0x2000, Limit: 0x4000, Offset: 0x2000, Symbols: true}
	deleted := &mapped{Path: "/tmp/\x1b[2Jgone", Start: 0x1000, Limit: 0x2000}

	entry := &frame{Kind: kindKernel, File: kernel, Address: 0xffffffff81000130,
		Lines: []symbols.Line{{Function: "entry_SYSCALL_64_after_hwframe", Linkage: "entry_SYSCALL_64_after_hwframe", Start: 0xffffffff810000ba}}}
	read := &frame{Kind: kindKernel, File: kernel, Address: 0xffffffff816d5c2b, Lines: []symbols.Line{{Function: "vfs_read", Linkage: "vfs_read", Start: 0xffffffff816d5b70}}}
	hook := &frame{Kind: kindKernel, File: module, Address: 0xffffffffc0000010, Lines: []symbols.Line{{Function: "nft_do_chain", Linkage: "nft_do_chain", Start: 0xffffffffc0000000}}}
	thread := &frame{Kind: kindKernel, File: kernel, Address: 0xffffffff81100000, Lines: []symbols.Line{line("kthread")}}

	start := &frame{File: program, Address: 0x1100, Lines: []symbols.Line{{Function: "_start", Linkage: "_start", Start: 0x10f0}}}
	serve := &frame{File: program, Address: 0x2200, Lines: []symbols.Line{
		{Function: "std::vector<int>::push_back", Linkage: "_ZNSt6vectorIiE9push_backEv", File: "/src/vector.h", Line: 31, StartLine: 30, Start: 0x2000},
		{Function: "operator&&(A&, \"B\")", Linkage: "_Zaa", File: "/src/a b.cc", Line: 8, StartLine: 7, Start: 0x2000},
		{Function: "serve", Linkage: "serve", File: "/src/serve.cc", Line: 120, StartLine: 100, Start: 0x2000},
	}}
	helper := &frame{File: library, Address: 0x2345, Lines: []symbols.Line{{Function: "helper;a", Linkage: "helper;a", Start: 0x2340}}}
	nameless := &frame{File: deleted, Address: 0x1234, Lines: []symbols.Line{line("[gone+0x1234]")}}
	compiled := &frame{Kind: kindJIT, Address: 0x7f0000001000, Lines: []symbols.Line{line("Lcom/example/Main;.run\n]]></script>")}}
	anon := &frame{Kind: kindUnknown, Address: 0xdeadbeef, Lines: []symbols.Line{line("[unknown]")}}

	server := &process{PID: 100, Comm: "server", Exe: program.Path, Cgroup: "/system.slice/docker-0123.scope", CgroupID: 42,
		Container: "0123456789ab"}
	java := &process{PID: 2000, Comm: "ja va 7", Exe: "/usr/bin/java", Cgroup: "/", CgroupID: 1}
	kworker := &process{PID: 9, Comm: "kworker/0:1", Kernel: true, CgroupID: 1}

	r := &report{
		Command: []string{"profile", "-F", "49", "--svg", "a&b.svg"}, Version: "v1.0", Kernel: "6.12.0", CPUs: 2, Event: "cpu-clock",
		Unit: "nanoseconds", Period: 20408163, Hertz: 49,
		Start: time.Date(2026, 11, 24, 15, 0, 0, 123456789, time.UTC), Duration: 10 * time.Second,
		Files: []*mapped{kernel, program, library, deleted, module},
		Stacks: []*stack{
			{Process: java, TID: 2001, Comm: "C2 \xffCompiler", User: []*frame{anon, compiled}, Status: statusFault, Count: 5},
			{Process: java, TID: 2000, Comm: "ja va 7", User: []*frame{compiled}, Status: statusFramePointers, Count: 3},
			{Process: kworker, TID: 9, Comm: "kworker/0:1", Kernel: []*frame{hook, thread}, Count: 2},
			{Process: server, TID: 100, Comm: "server", User: []*frame{serve, start}, Status: statusFramePointers, Count: 4000},
			{Process: server, TID: 100, Comm: "server", Kernel: []*frame{read, entry}, User: []*frame{helper, serve, start}, Status: statusFramePointers, Count: 1234},
			{Process: server, TID: 101, Comm: "worker", User: []*frame{nameless, serve}, Status: statusDepth, Count: 1},
		},
		Totals: totals{Taken: 6000, Shown: 5245, Idle: 700, Filtered: 32, Lost: map[string]uint64{"ring_full": 20, "nested": 3}, Possibly: 1,
			Throttled: 2, Unwinds: map[status]uint64{statusNone: 2, statusFramePointers: 5237, statusDepth: 1, statusFault: 5}},
	}
	r.Moments = []moment{
		{14926_056082_123, 20408163, 0, r.Stacks[3]}, {14926_066082_999, 20408163, 1, r.Stacks[4]}, {14926_066083_000, 20408163, 0, r.Stacks[2]},
		{1014926_066083_000, 20408163, 0, r.Stacks[0]}, {1014926_066083_000, 20408163, 127, r.Stacks[5]}, {1014926_066083_001, 20408163, 1, r.Stacks[1]},
	}
	return r
}
