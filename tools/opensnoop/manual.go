package main

import text "github.com/gobcc/gobcc/internal/common/manual"

// about is what --help and --man say beside the flags.
var about = text.Manual{
	Name:     "opensnoop",
	Summary:  "show the files that processes open, or fail to",
	Synopsis: []string{"opensnoop [options]", "opensnoop [options] -- COMMAND [ARG...]"},
	Description: `opensnoop prints a row for every file that a process opens or tries to
open: which process, whether it worked, and the path. It answers which
configuration file a program really reads, which files it looks for in vain,
and who touches a file.

Every way to open a file is seen: open, creat, openat, openat2 and
open_by_handle_at, by 64-bit and by 32-bit programs, and io_uring. What the
running kernel hides from it is said on standard error when it starts.

With a command, that command is started and traced with all that it starts
in turn, from its first instruction to its end; the exit status is then the
command's.

Rows go to standard output, all else to standard error. Bytes that would
disturb a terminal or hide a row are escaped, in pipes and files too:
\n, \t, \x1b, \u202e; a backslash is \\.

Filters work in the kernel, except -x and --min-latency for io_uring, --path,
and --path-prefix together with -F or --json.`,
	Columns: []text.Column{
		{Name: "TIME(s)", Text: "with -T: seconds since the first row"},
		{Name: "UID", Text: "with -U: the user's number"},
		{Name: "PID", Text: "the process; with -t, TID: the thread"},
		{Name: "COMM", Text: "the name of the thread, as the kernel keeps it"},
		{Name: "FD", Text: "the new file descriptor, or -1"},
		{Name: "ERR", Text: "the error's number, or its name with --errno-names; 0 if there was none"},
		{Name: "LAT(us)", Text: "with --latency: how long it took, in microseconds; ? if its beginning was not seen"},
		{Name: "FLAGS", Text: "with -e: the flags in octal, or by name with --flag-names"},
		{Name: "MODE", Text: "with -e: the mode in octal, n/a if no file was to be made"},
		{Name: "PATH", Text: "the path as the program gave it; with -F, that of the file. <unreadable> if the program's memory could not be read and no file was opened, <file handle> if none was by open_by_handle_at, \"\" if the program gave an empty one. A path that is longer than shown ends in ... (or, if names near the root are missing, begins with it). With -F, a file without a name is marked (deleted), and one that is not below the root begins with (unreachable)"},
		{Name: "VIA", Text: "with -e: how the file was opened: open, creat, openat, openat2, open_by_handle_at, each with /32 behind it if by a 32-bit program; io_uring/openat, io_uring/openat2"},
		{Name: "OPENS", Text: "with --summary: how often this process opened this path, or tried to"},
		{Name: "FAILED", Text: "with --summary: how many of them failed"},
		{Name: "AVG(us)", Text: "with --summary: the mean time an open took, in microseconds"},
		{Name: "MAX(us)", Text: "with --summary: the longest"},
	},
	JSON: []text.Key{
		{Name: "time", Type: "string", Text: "when the open ended, taken in the kernel: RFC 3339, UTC, nanoseconds"},
		{Name: "kind", Type: "string", Text: "\"open\"; or \"lost\" in an object that counts losses"},
		{Name: "pid", Type: "integer", Text: "the process"},
		{Name: "tid", Type: "integer", Text: "the thread"},
		{Name: "ppid", Type: "integer", Text: "the parent process"},
		{Name: "uid", Type: "integer", Text: "the user"},
		{Name: "comm", Type: "string", Text: "the name of the thread; of the process, for io_uring's workers"},
		{Name: "cgroup_id", Type: "integer", Text: "the version 2 cgroup: the inode of its directory"},
		{Name: "path", Type: "string, or null", Text: "the path as the program gave it; null if there is none or it could not be read"},
		{Name: "path_bytes", Type: "string", Text: "only if path is not UTF-8: its exact bytes in base64; so for other strings"},
		{Name: "full_path", Type: "string, or null", Text: "the path of the file that was opened; for an open that failed, path from its directory on; null if it is not known"},
		{Name: "path_unreadable", Type: "boolean", Text: "the program's memory could not be read"},
		{Name: "path_cut", Type: "boolean", Text: "path or full_path is longer than shown"},
		{Name: "deleted", Type: "boolean", Text: "the file has no name any more, or never had one"},
		{Name: "fd", Type: "integer", Text: "the new file descriptor, or -1"},
		{Name: "errno", Type: "integer", Text: "the error's number, or 0"},
		{Name: "error", Type: "string, or null", Text: "its name: \"ENOENT\""},
		{Name: "flags", Type: "array of strings", Text: "the flags by name, the access mode first"},
		{Name: "flags_value", Type: "integer", Text: "the flags as a number"},
		{Name: "mode", Type: "string, or null", Text: "the mode in octal, \"0644\"; null if no file was to be made"},
		{Name: "via", Type: "string", Text: "how it was opened, as in the column VIA"},
		{Name: "latency_ns", Type: "integer, or null", Text: "how long it took, in nanoseconds; null if its beginning was not seen"},
		{Name: "lost", Type: "integer", Text: "in objects of kind \"lost\": how many events were lost so far"},
		{Name: "possibly_lost", Type: "integer", Text: "there too: how many more may have been, where the kernel does not tell for certain"},
		{Name: "causes", Type: "object", Text: "there too: the lost events by cause, as ring_full"},
	},
	Examples: []text.Example{
		{Command: "opensnoop", Text: "Show every open on this machine"},
		{Command: "opensnoop -x -p 1576 --errno-names", Text: "Show what process 1576 looks for in vain"},
		{Command: "opensnoop -F -- ./configure", Text: "Run a command and show the files it really reads"},
		{Command: "opensnoop -n nginx --path '*.conf' -e", Text: "Show with which flags nginx opens its configuration"},
		{Command: "opensnoop -f O_CREAT -f O_TRUNC --path-prefix /var/log/", Text: "Show who makes or empties files there"},
		{Command: "opensnoop --min-latency 10ms --latency -d 60", Text: "Show the slow ones of a minute"},
		{Command: "opensnoop -p 1576 --follow --summary -d 10", Text: "Count what a service and all that it starts opened in ten seconds"},
		{Command: "opensnoop --json -x | jq -r 'select(.error == \"EACCES\") | .full_path'", Text: "List what was forbidden"},
	},
	Overhead: `Measured in tracepoint mode on a virtual machine (docs/speed.md): an open takes 0.8 µs
longer, any other system call 0.1 µs, as all of them take the slow way in
and out of the kernel while a tool traces them by tracepoints; fentry and
kprobe mode cost opens alone. The tool itself takes 0.4 µs of CPU time a row. -F
and --json have the kernel walk up the directories of each file besides.

Kernel memory is 8 MiB for the ring buffer (--buffer-pages) and under 4 MiB
besides.`,
	Caveats: `Losses are counted and said by cause, once a second and at the end. If there
are any, a larger --buffer-pages or a narrower filter helps.

The path is read when the call returns, so another thread can change it
meanwhile. With -F the file is found by its descriptor: if another thread closes
and reuses it in the microsecond before the call returns, its path is shown.

fentry and kprobe mode do not see opens that a seccomp filter refused, since they
never begin. kprobe mode loses opens while more than 1,024 threads wait in one
(without tracefs, more than a few), and counts them. On a preemptible kernel
fentry mode, and from 7.0 on tracepoint mode, loses opens of a CPU's other
threads while one is preempted within the tool's program, and counts them; kprobe
mode does not. What a kernel keeps from every mode, as io_uring before
5.19, is said at the start.

The flags of an open through io_uring have O_LARGEFILE, which the kernel adds
before it can be seen.

The tool does not show its own opens. With -p or -t it ends when there is
nothing left to trace.

A number alone behind --cgroup is an id; write ./123 for a cgroup of such a name.

--path-root host shows files in containers by where the host has the same
file system mounted; if it has it mounted nowhere, the path as the program
gave it is shown, and full_path is null.`,
	Requirements: `Linux 5.10 or later with BTF (or --btf) and BPF ring buffers. Root, or CAP_BPF and
CAP_PERFMON; kprobe mode needs CAP_SYS_ADMIN where kernel.perf_event_paranoid is
3, as on Debian. --preflight tells what is there.`,
	SeeAlso: []string{"open(2)", "openat2(2)", "io_uring(7)", "bpf(2)", "capabilities(7)"},
}
