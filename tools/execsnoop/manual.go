package main

import manpage "github.com/gobcc/gobcc/internal/common/manual"

// about is what --help and --man say beside the flags.
var about = manpage.Manual{
	Name:     "execsnoop",
	Summary:  "show the programs that are run, whole, and how they end",
	Synopsis: []string{"execsnoop [options]", "execsnoop [options] -- COMMAND [ARG...]"},
	Description: `execsnoop prints a row for every program that is run: what it is, who started
it, and all its arguments. It shows what a machine really does, including what
lives for a millisecond: the commands of a cron job, of a build, of a shell
script that somebody broke in with.

A program is shown when the kernel has made it ready to run, so its arguments are
those that it gets; through execve or execveat, from whichever thread, by
32-bit programs too. With -x, programs that could not be run are shown with
the error, and the arguments as the caller gave them.

With --exit, another row tells how each process ended. It comes when the kernel
knows what the process used in all, a moment after its end.

With a command, that command is started and traced with all that it starts in
turn, from its own exec to its end; the exit status is then the command's.

Rows go to standard output, all else to standard error. Bytes that would
disturb a terminal or hide a row are escaped, in pipes and files too: \n, \t,
\x1b, \u202e; a backslash is \\.

Filters work in the kernel, except -n and -l.`,
	Columns: []manpage.Column{
		{Name: "TIME", Text: "with -T: the time of day"},
		{Name: "TIME(s)", Text: "with -t: seconds since the start"},
		{Name: "UID", Text: "with -U: the user's number"},
		{Name: "PCOMM", Text: "the name of the process, as BCC heads it; with -M that is COMM, and PCOMM the parent's name"},
		{Name: "COMM", Text: "with -M: the name of the process"},
		{Name: "PID", Text: "the process"},
		{Name: "PPID", Text: "its parent"},
		{Name: "CPU", Text: "with -C: the CPU it happened on"},
		{Name: "RET", Text: "0, or the negative number of the error; at the end of a process what a shell gives as its status: the exit status, or 128 and the signal"},
		{Name: "ARGS", Text: "the file as it was named in the call, and the arguments but the first. Where something is missing stands ... and, if it was cut by --max-bytes, how much. At the end of a process: <exited with 3 after 0.012345 s, user 0.001000 s, system 0.000500 s, at most 1548 KiB>. Behind the arguments, in brackets, stands what --exe, --cwd, --tty, --loginuid, --ancestors and --env ask for"},
		{Name: "RUNS", Text: "with --summary: how often the program ran"},
		{Name: "FAILED", Text: "with --summary and -x: how often it could not be run"},
		{Name: "ENDED", Text: "with --summary: how many of the runs have ended"},
		{Name: "TOTAL(s)", Text: "with --summary: how long those took in all, in seconds"},
		{Name: "PROGRAM", Text: "with --summary: the file as it was named in the call"},
	},
	JSON: []manpage.Key{
		{Name: "time", Type: "string", Text: "when it happened, taken in the kernel: RFC 3339, UTC, nanoseconds"},
		{Name: "kind", Type: "string", Text: "\"exec\", \"exit\"; or \"lost\" in an object that counts losses"},
		{Name: "pid", Type: "integer", Text: "the process"},
		{Name: "tid", Type: "integer", Text: "the thread"},
		{Name: "ppid", Type: "integer", Text: "the parent process"},
		{Name: "uid", Type: "integer", Text: "the user"},
		{Name: "comm", Type: "string", Text: "the name of the process; of an exec that failed, the caller's"},
		{Name: "cgroup_id", Type: "integer", Text: "the version 2 cgroup: the inode of its directory"},
		{Name: "parent_comm", Type: "string", Text: "the name of the parent process"},
		{Name: "exec_id", Type: "string, or null", Text: "tells this run of a program from all others; its exit has the same. null if the exec failed"},
		{Name: "filename", Type: "string, or null", Text: "the file as it was named in the call; null if it could not be read"},
		{Name: "filename_cut", Type: "boolean", Text: "the name goes on: the kernel takes none of more than 4,095 bytes"},
		{Name: "interpreter", Type: "string, or null", Text: "of a script: the program that runs it"},
		{Name: "exe", Type: "string, or null", Text: "the file that really runs, links resolved, as seen from the process's root"},
		{Name: "args", Type: "array of strings", Text: "the arguments. A script's first is its filename: the kernel drops the one that was given"},
		{Name: "args_missing", Type: "integer", Text: "how many arguments are not there at all"},
		{Name: "args_bytes_missing", Type: "integer", Text: "how many bytes are not there, by --max-bytes"},
		{Name: "args_unreadable", Type: "boolean", Text: "arguments could not be read from the program's memory"},
		{Name: "cwd", Type: "string, or null", Text: "the working directory"},
		{Name: "ret", Type: "integer", Text: "0, or the negative number of the error"},
		{Name: "error", Type: "string, or null", Text: "its name: \"ENOENT\""},
		{Name: "cpu", Type: "integer", Text: "the CPU"},
		{Name: "tty", Type: "string, or null", Text: "the terminal"},
		{Name: "loginuid", Type: "integer, or null", Text: "the user who logged in"},
		{Name: "sessionid", Type: "integer, or null", Text: "the login's number in the audit log"},
		{Name: "ancestors", Type: "array of objects", Text: "with --ancestors: pid and comm of the parents, nearest first"},
		{Name: "env", Type: "array of strings", Text: "with --env: the variables that are set, as NAME=value"},
		{Name: "exit_code", Type: "integer, or null", Text: "in an exit: the exit status; null if a signal ended it"},
		{Name: "signal", Type: "string, or null", Text: "in an exit: the signal that ended it"},
		{Name: "core_dumped", Type: "boolean", Text: "in an exit"},
		{Name: "duration_ns", Type: "integer", Text: "in an exit: how long it ran, from the exec if that was seen, else from the beginning of the process"},
		{Name: "user_ns", Type: "integer, or null", Text: "in an exit: CPU time of the process in user mode; null if the kernel did not tell it in time"},
		{Name: "system_ns", Type: "integer, or null", Text: "in an exit: that in the kernel"},
		{Name: "max_rss_bytes", Type: "integer", Text: "in an exit: the most memory the process had, before its exec too"},
		{Name: "lost", Type: "integer", Text: "in objects of kind \"lost\": how many events were lost so far"},
		{Name: "possibly_lost", Type: "integer", Text: "there too: how many more may have been, where the kernel does not tell for certain"},
		{Name: "causes", Type: "object", Text: "there too: the lost events by cause, as ring_full"},
	},
	Examples: []manpage.Example{
		{Command: "execsnoop", Text: "Show every program that is run on this machine"},
		{Command: "execsnoop -x -t --exit -- make -j8", Text: "Run a build and show what it runs, what it looks for in vain, and how all of that ends"},
		{Command: "execsnoop --tree -- ./configure", Text: "See who starts whom"},
		{Command: "execsnoop -u www-data --exe --cwd --ancestors", Text: "Show what a user runs, from where, and who is behind it"},
		{Command: "execsnoop -l 'curl .*http' -T", Text: "Show downloads with the time of day"},
		{Command: "execsnoop --exit-only --json | jq 'select(.signal)'", Text: "List the processes that a signal ended"},
		{Command: "execsnoop --summary --duration 60", Text: "Count what a minute's cron jobs ran"},
		{Command: "execsnoop --env LD_PRELOAD,PATH -P 1", Text: "Show how init starts services, with two variables"},
	},
	Overhead: `A program that is run is shown by one kernel program on one tracepoint, whatever
the mode. It takes 2.6 µs of an exec of some 105 (docs/speed.md). Other
system calls cost nothing, except with -x in tracepoint mode: then every one
takes 0.1 µs longer, as all of them take the slow way in and out of the
kernel while a tool traces them by tracepoints.

Kernel memory is 8 MiB for the ring buffer (--buffer-pages) and under 2 MiB
besides, however long the arguments are.`,
	Caveats: `Losses are counted and said by cause, once a second and at the end. An exec is
shown whole or not at all. From Linux 7.0 on, a kernel that preempts skips a
program on a CPU where another task was preempted in it. There the tool's programs have
three spares each, and an event is missed only if tasks were preempted in all
four, on one CPU at the same time; how many may have been is said. Failures (-x)
have no spares in tracepoint mode, nor have those of 32-bit programs.

The kernel puts a script's interpreter before the script's arguments and drops the
first; ARGS and args are the script's own, with its file name for the first.

CPU times are those that wait4(2) gives, and what the process used of them after
its parent was told. A process that takes longer than two seconds to give its
memory back is shown without, as is one that the kernel frees unseen; how many is
said at the end. The most memory is the kernel's account, which goes
on over an exec: it may be what the process had before.

The arguments of a failed exec are read after the kernel gave up on it. If it
never read them itself, and they were not in memory yet, they are shown as
unreadable.

Of a failed exec no more than 8,192 pieces of 1 KiB of arguments are counted.

The tool ends when all processes picked with --pid have ended.`,
	Requirements: `Linux 5.10 or later with BTF (or --btf) and BPF ring buffers. Root, or CAP_BPF and
CAP_PERFMON; -x in kprobe mode needs CAP_SYS_ADMIN where
kernel.perf_event_paranoid is 3, as on Debian. --preflight tells what is there.`,
	SeeAlso: []string{"execve(2)", "execveat(2)", "wait(2)", "bpf(2)", "capabilities(7)"},
}
