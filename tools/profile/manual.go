package main

import manpage "github.com/gobcc/gobcc/internal/common/manual"

// about is what --help and --man say beside the flags.
var about = manpage.Manual{
	Name:    "profile",
	Summary: "sample what the CPUs do, as stacks, flame graphs and pprof profiles",
	Synopsis: []string{
		"profile [options] [DURATION]",
		"profile [options] [DURATION] -- COMMAND [ARG...]",
	},
	Description: `profile looks at each CPU many times a second, and takes the stack of what runs
there: of the kernel and of user space. It answers where the time goes, of all
processes or of some, by function. It runs until DURATION (in seconds) is over, or
it is interrupted; then it writes each stack with the number of its samples.

Without other options it writes stacks as text, the function at work first, those
with the most samples last. -f writes folded stacks for flamegraph.pl; --pprof,
--svg and --script write files, several in one run if wanted, and then there is no
text. All are made of the same samples.

--pprof has an address, a build id and the functions for each frame; its labels pid, tid,
comm, thread, exe, cgroup, container and unwind tell samples apart: pprof -tagroot comm.
(pprof takes what begins with a digit for a range: -tagfocus container=^0123.) It counts
the samples, and what they stand for: CPU time, or with -e cycles and the like how many of
these, which the kernel tells with each sample. --svg is a
picture for a browser, in which arrow keys, Enter, / and i move, zoom, search and turn it
over; without scripts it is a still picture. --script is what FlameScope reads.

--save-raw records what came from the kernel, and the names that were found for it.
--replay FILE with -f, --json, --pprof, --svg or --script, or without for the text, then
writes what the run itself would have, on any machine and with no privileges.

Nothing is counted in a table that could be full: each sample comes to the tool.
How many there were, and what became of them, is said at the end on standard error:
those shown, those of idle CPUs, those that the filters left out, and those lost.

User stacks are found by the tables that compilers leave in programs for exceptions
(.eh_frame), and Go in its own: no frame pointers are needed. The kernel walks them as the
sample is taken; where it can't yet, as a process has just begun, the stack is copied, with
the registers, and walked later (--unwind). Code that a runtime made has no tables: there
frame pointers are followed, if what is in the register looks like one. Each stack says
how it came out, in JSON and as a label of pprof's, and the summary how many are complete.
One that is cut has [truncated] for its root.

The functions of the kernel are named by /proc/kallsyms; those of programs
and libraries by their symbols, also where they are in a container, were deleted, or
ran for a moment only. Where no name is known, a frame says what is: [libfoo.so+0x1234],
[anon] for code that a process made itself, [unknown].

Code that a runtime made (Node, Java, Python) has names if it writes
/tmp/perf-PID.map. A HotSpot JVM of 17 or later does when it is asked to:
--java-perfmap asks those that were sampled, when the sampling is over and for two
seconds at most. It has them write that file, so it is not done unless wanted. One
that has ended can't be asked. Java needs -XX:+PreserveFramePointer for whole stacks.

With a command, that command is started and sampled, from its own beginning on, with
all that it starts in turn; the exit status is then the command's. All filters work in
the kernel. The tool's own samples are never shown.`,
	JSON: jsonKeys,
	Examples: []manpage.Example{
		{Command: "profile 10", Text: "Show where all CPUs spend their time, for 10 seconds"},
		{Command: "profile -f 10 > out.folded", Text: "Write folded stacks, for flamegraph.pl"},
		{Command: "profile --pprof cpu.pb.gz --svg cpu.svg 10", Text: "Write a profile for go tool pprof and a flame graph in one run"},
		{Command: "profile -F 99 -p 185 30", Text: "Sample one process, 99 times a second"},
		{Command: "profile -K -a 5", Text: "Show what the kernel does"},
		{Command: "profile -e page-faults -c 1 -- ls", Text: "Show where a command causes page faults"},
		{Command: "profile --save-raw run.raw 60", Text: "Record a minute, to look at it elsewhere"},
		{Command: "profile --replay run.raw --svg cpu.svg", Text: "Draw the flame graph of what was recorded"},
		{Command: "profile --pprof make.pb.gz -- make", Text: "Profile a command and its children; go tool pprof -top make.pb.gz shows it"},
	},
	Overhead: `By the kernel's own statistics (--stats), which cost a little themselves, the
program takes 12 µs of a sample with 32 user frames at 49 Hertz, and 7 µs at 999, where
what it touches is still in the caches: measured on a virtual machine of two CPUs. That is
0.06 % of a CPU at 49 Hertz, and 0.7 % at 999. The tool itself took 0.5 s of CPU time
in a run of 2 seconds of all processes, most of it to begin and for names at the end, then
about 1 % of a CPU, and 47 MB of memory, 17 of them the ring buffer, counted twice. Where
many large programs begin, to read their tables takes more: 126 MiB were seen while
compilers ran.`,
	Caveats: `A sample says what ran, not what waited: threads that sleep are not seen.

Once a second the tool looks which CPUs there are. One that comes, or comes back, is
sampled from then on: at most two seconds later.

cpu-clock is a timer: where the kernel has interrupts off, the sample comes when they
are on again, and shows the function that turned them on. cycles sees inside, on
machines that have it. On some virtual machines an idle CPU takes no timer: -I then shows
less idle time than there was. The summary says so where many samples are missing.

The kernel cuts its own stacks at kernel.perf_event_max_stack frames (127), and those of
user space where they are found by frame pointers, whatever --max-user-depth says.

A copy of a stack has 16 KiB (--unwind-copy), and of all CPUs no more than 8 MiB are copied
a second, with --unwind copy 128 MiB: beyond that stacks are cut where the kernel's walk
ended, or by frame pointers with --unwind copy. A copy is
of one stack: it ends where Go's runtime goes from its own to a goroutine's; that of a
handler of signals is copied with what it interrupted, but not with SS_AUTODISARM. 32-bit
programs have other tables: they are by frame pointers.

The kernel's tables take 64 MiB at most (--unwind-memory), and what all programs of a
distribution have fits in. Those of programs that have ended make room for others; what
there is no room for is copied, and said at the end. The kernel learns within 50 ms what
a process has mapped anew. If that took the place of something else, stacks that it walked by
the wrong table until then are cut where they went into it.

In a container with a pid namespace of its own, processes outside of it have the pid 0,
and no names but their comm: nothing tells what they have mapped.

More than 20,000 samples a second by a clock are refused: nothing in the kernel holds back
a timer, and a machine does nothing else at 100,000.

Where the kernel skips a sample since another BPF program of the same kind runs on the
CPU, it does not say so.`,
	Requirements: `Linux 5.10 or later with BTF (or --btf). Root, or CAP_BPF and CAP_PERFMON; CAP_SYSLOG
for the names of the kernel's functions, CAP_SYS_PTRACE and CAP_CHECKPOINT_RESTORE
for those of other users' processes. --preflight tells what is there.`,
	SeeAlso: []string{"perf(1)", "pprof(1)", "bpf(2)", "perf_event_open(2)"},
}

// jsonKeys are those of json.go.
var jsonKeys = []manpage.Key{
	{Name: "kind", Type: "string", Text: "\"stack\", one for each stack of a thread; \"run\", the last; or \"lost\""},
	{Name: "count", Type: "integer", Text: "how many samples have the stack"},
	{Name: "pid", Type: "integer", Text: "the process; 0 for an idle CPU, and for what this pid namespace hides"},
	{Name: "tid", Type: "integer", Text: "the thread"},
	{Name: "comm", Type: "string", Text: "the thread's name"},
	{Name: "process_comm", Type: "string", Text: "that of the process's main thread"},
	{Name: "exe", Type: "string, or null", Text: "path of its program, as it sees it"},
	{Name: "cgroup_id", Type: "integer", Text: "its cgroup"},
	{Name: "cgroup", Type: "string, or null", Text: "the cgroup's path"},
	{Name: "container", Type: "string, or null", Text: "the container's id"},
	{Name: "kernel_thread", Type: "boolean", Text: "whether it is one"},
	{Name: "unwind", Type: "string", Text: "how the user stack came out: \"complete\"; \"guessed\" if it is, in part by frame pointers that may be none; \"frame-pointers\", \"budget\" or \"32-bit\" if by nothing else; \"leaf\" if no more was asked for; \"none\"; or how it was cut: \"depth\", \"copy-end\", \"fault\" where it could not be read, \"no-mapping\", \"no-table\", \"no-rule\", \"broken\""},
	{Name: "kernel_stack", Type: "array of objects", Text: "functions of the kernel, that at work first"},
	{Name: "user_stack", Type: "array of objects", Text: "those of user space"},
	{Name: "kernel_stack[].function", Type: "string", Text: "name of a function, in both stacks; linkage is there where linkers know it by another"},
	{Name: "kernel_stack[].type", Type: "string", Text: "\"kernel\", \"user\", \"jit\" for what a runtime made, or \"unknown\""},
	{Name: "kernel_stack[].inlined", Type: "boolean", Text: "whether it was made part of the function after it, at the same address"},
	{Name: "kernel_stack[].address", Type: "string", Text: "hexadecimal; in a file, the file's own (ELF) address; of a caller, the last byte of its call"},
	{Name: "kernel_stack[].file", Type: "string", Text: "what it was mapped from, with build_id if it has one; not there for memory of no file"},
	{Name: "kernel_stack[].source", Type: "string", Text: "source file, with line, where they are known"},
	{Name: "time", Type: "string", Text: "with \"run\": when the sampling began"},
	{Name: "duration_ns", Type: "integer", Text: "with \"run\": for how long it went"},
	{Name: "command", Type: "array of strings", Text: "with \"run\": the tool's command line"},
	{Name: "version, kernel", Type: "string", Text: "with \"run\": the tool's version, and the kernel's release"},
	{Name: "cpus", Type: "integer", Text: "with \"run\": how many were sampled"},
	{Name: "event, unit", Type: "string", Text: "with \"run\": what was sampled by, and what period is in: \"nanoseconds\" or \"count\""},
	{Name: "period", Type: "integer", Text: "with \"run\": what is between two samples of a CPU; 0 if it varied"},
	{Name: "hertz", Type: "integer", Text: "with \"run\": the frequency, or 0 with -c"},
	{Name: "taken, shown, idle, filtered, lost", Type: "integer", Text: "with \"run\": all samples, and what became of them: taken is the sum of the others"},
	{Name: "causes", Type: "object", Text: "with \"run\": how many were lost, by cause"},
	{Name: "possibly_lost", Type: "integer", Text: "with \"run\": events that may have been lost"},
	{Name: "throttled", Type: "integer", Text: "with \"run\": how often the kernel held back the sampling"},
	{Name: "unwinds", Type: "object", Text: "with \"run\": samples shown, by how the user stack came out, as in unwind"},
}
