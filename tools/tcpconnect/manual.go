package main

import manpage "github.com/gobcc/gobcc/internal/common/manual"

// about is what --help and --man say beside the flags.
var about = manpage.Manual{
	Name:    "tcpconnect",
	Summary: "show who connects where by TCP, whether it worked, and how long it took",
	Synopsis: []string{
		"tcpconnect [options]",
		"tcpconnect [options] -- COMMAND [ARG...]",
		"tcpconnect -c [options] [INTERVAL [COUNT]]",
	},
	Description: `tcpconnect prints a row for every TCP connection that a process makes or tries
to make: who, from where, and where to. It answers which server a program
really talks to, who fills a network with connections, and with --outcome
which connects fail or are slow, and why.

The row comes when the attempt is made, as in BCC. With --outcome (and what
implies it: -x, --min-ms, --json and -c) it comes when the attempt has
ended, and tells how: established, refused, timed out, given up by the program.
What is still under way when the tool ends is shown as pending, but for -x.

With -c there are no rows but a table, most connects first: at the end, or every
INTERVAL seconds, and then COUNT times at most.

With -d or --domains a row has the name that its remote address was looked up by:
from the DNS answers that come in while the tool runs, by UDP and TCP from
port 53. The tool itself looks nothing up.

Every attempt is seen: blocking or not, over IPv4 and IPv6, by 32-bit programs,
TCP Fast Open, MPTCP (a row for each of its paths), io_uring, and by the kernel
itself. An IPv4 address that an IPv6 socket connects to (::ffff:192.0.2.1) is shown
as IPv4. What the running kernel hides is said on standard error at the start.

The process shown is the one that called, whichever runs when the answer comes.

With a command, that command is started and traced with all that it starts in
turn, from its first instruction to its end; the exit status is then the
command's.

Rows go to standard output, all else to standard error. Bytes that would
disturb a terminal or hide a row are escaped, in pipes and files too: \n, \t,
\x1b, \u202e; a backslash is \\.

All filters work in the kernel.`,
	Columns: []manpage.Column{
		{Name: "TIME(s)", Text: "with -t: seconds since the first row's attempt began; below 0 for one that began before that and ended later"},
		{Name: "UID", Text: "with -U: the user's number"},
		{Name: "PID", Text: "the process"},
		{Name: "COMM", Text: "the name of the thread, as the kernel keeps it"},
		{Name: "IP", Text: "4 or 6"},
		{Name: "SADDR", Text: "the local address; - if the attempt failed before one was chosen"},
		{Name: "LPORT", Text: "with -L: the local port; 0 if the attempt failed before one was chosen"},
		{Name: "DADDR", Text: "the remote address"},
		{Name: "DPORT", Text: "the remote port"},
		{Name: "RESULT", Text: "with --outcome: ok, the name of the error, aborted if the program closed the socket or died first, pending if the tool ended first, failed if the kernel did not tell which error"},
		{Name: "LAT(ms)", Text: "with --outcome: from the call to the result, in milliseconds; - if there is none yet, or its beginning was not seen"},
		{Name: "RETR", Text: "with --outcome: how often the SYN was sent again"},
		{Name: "QUERY", Text: "with -d: the name that the remote address was looked up by, and how long the lookup took; empty if none was seen"},
		{Name: "DOMAIN", Text: "with --domains: the name alone"},
		{Name: "LADDR", Text: "with -c: the local address"},
		{Name: "RADDR", Text: "with -c: the remote address"},
		{Name: "RPORT", Text: "with -c: the remote port"},
		{Name: "CONNECTS", Text: "with -c: how many attempts have ended in this time; in the last table also those that are still under way"},
		{Name: "FAILED", Text: "with -c: how many of them failed or were aborted"},
		{Name: "P50(ms)", Text: "with -c: of those that were established, the median time that it took, at most 1/16 too much"},
		{Name: "P99(ms)", Text: "with -c: what 99 % of them did not exceed, likewise"},
		{Name: "MAX(ms)", Text: "with -c: the longest"},
	},
	JSON: []manpage.Key{
		{Name: "time", Type: "string", Text: "when the attempt began, taken in the kernel; with -c, when the table was made: RFC 3339, UTC, nanoseconds"},
		{Name: "kind", Type: "string", Text: "\"connect\", \"count\"; or \"lost\" in an object that counts losses"},
		{Name: "pid", Type: "integer", Text: "the process"},
		{Name: "tid", Type: "integer", Text: "the thread"},
		{Name: "uid", Type: "integer", Text: "the user"},
		{Name: "comm", Type: "string", Text: "the name of the thread; of the process, for io_uring's workers"},
		{Name: "cgroup_id", Type: "integer", Text: "the version 2 cgroup: the inode of its directory"},
		{Name: "netns", Type: "integer", Text: "the network namespace: the number of its inode, as lsns(8) shows it"},
		{Name: "family", Type: "integer", Text: "4 or 6"},
		{Name: "saddr", Type: "string, or null", Text: "the local address; null if the attempt failed before one was chosen"},
		{Name: "sport", Type: "integer, or null", Text: "the local port, or 0; with -c only with -L"},
		{Name: "daddr", Type: "string, or null", Text: "the remote address"},
		{Name: "dport", Type: "integer, or null", Text: "the remote port"},
		{Name: "result", Type: "string", Text: "as in the column RESULT: \"ok\", \"ECONNREFUSED\", \"aborted\", \"pending\", \"failed\""},
		{Name: "errno", Type: "integer", Text: "the error's number, or 0"},
		{Name: "error", Type: "string, or null", Text: "its name"},
		{Name: "latency_ns", Type: "integer, or null", Text: "from the call to the result; null if there is none yet, or its beginning was not seen"},
		{Name: "retransmits", Type: "integer", Text: "how often the SYN was sent again"},
		{Name: "via", Type: "string", Text: "how it was made: \"connect\", \"fastopen\", \"mptcp\", \"io_uring\", \"kernel\"; with /32 behind it if by a 32-bit program"},
		{Name: "query", Type: "string, or null", Text: "with -d or --domains: the name that the remote address was looked up by; null if none was seen"},
		{Name: "query_bytes", Type: "string", Text: "only if query is not UTF-8: its exact bytes in base64; so for comm"},
		{Name: "query_latency_ns", Type: "integer, or null", Text: "there too: how long the lookup took; null if its beginning was not seen"},
		{Name: "connects", Type: "integer", Text: "with -c: as in the column CONNECTS"},
		{Name: "failed", Type: "integer", Text: "with -c: how many failed or were aborted"},
		{Name: "p50_ns", Type: "integer, or null", Text: "with -c: the median time to establish a connection; null if none was"},
		{Name: "p99_ns", Type: "integer, or null", Text: "with -c: what 99 % did not exceed"},
		{Name: "max_ns", Type: "integer, or null", Text: "with -c: the longest"},
		{Name: "lost", Type: "integer", Text: "in objects of kind \"lost\": how many events were lost so far"},
		{Name: "possibly_lost", Type: "integer", Text: "there too: how many more may have been, where the kernel does not tell for certain"},
		{Name: "causes", Type: "object", Text: "there too: the lost events by cause, as ring_full"},
	},
	Examples: []manpage.Example{
		{Command: "tcpconnect", Text: "Show every connection that this machine makes"},
		{Command: "tcpconnect -x", Text: "Show the connects that fail, why, and after how long"},
		{Command: "tcpconnect --outcome -d -- curl -s http://localhost/", Text: "Run a command and show where it connects, by which name, and how that went"},
		{Command: "tcpconnect --min-ms 200 -p 1576", Text: "Show the slow connects of process 1576"},
		{Command: "tcpconnect -P 443,8000-8099 --daddr '!10.0.0.0/8'", Text: "Show connects to some ports outside of the own network"},
		{Command: "tcpconnect -c 10", Text: "Count by destination, with failures and latencies, every ten seconds"},
		{Command: "tcpconnect --json | jq -r 'select(.retransmits > 0) | .daddr'", Text: "List where SYNs get lost"},
	},
	Overhead: `Measured in tracepoint mode on a virtual machine (docs/speed.md): a connect on the
loopback interface, which with its accept and both closes takes 36 µs, takes 0.6 µs
more. With --outcome, and what implies it, it takes 4.8 µs more, and every other
system call 0.1 µs, in tracepoint mode. With --domains it takes 1.9 µs more.

--domains and -d look at every packet that a socket sends or is sent. A byte to and
fro on the loopback interface then takes 0.5 µs longer, of 8 µs, by UDP, and 0.6 µs,
of 12, by TCP.

Kernel memory is 8 MiB for the ring buffer (--buffer-pages) and under 1 MiB
besides, with --outcome under 4 MiB.`,
	Caveats: `Losses are counted and said by cause, once a second and at the end. From Linux 7.0
on, a kernel that preempts may skip the program on a CPU where another task was
preempted in it; how often it did is said.

In tracepoint mode, which kernels without kprobes leave, an attempt begins for the
tool when the kernel has found the way to the destination, so its latency lacks what
came before. Without --outcome those that fail before that are not seen; with it
they are, but not how long they took. With -L a row comes when the call returns,
since the port is chosen within it.

A connection by TCP Fast Open that is put off until there is data to send
(TCP_FASTOPEN_CONNECT) begins with the call, so its latency contains the
time the program took to send.

With --saddr, attempts that failed before a local address was chosen are not shown.

In MPTCP the rows are those of the paths: what the program sees is the first of
them.

Names come from DNS messages on port 53 (UDP and TCP) that pass a socket of this
machine, whoever asks. The name is that of the newest answer with the address before the connect, be it another program's: many names share
the addresses of a large host. It is kept as long as the answer may be, but 2
seconds at least, and of 4,096 addresses. None is seen of DNS over TLS or HTTPS, of
/etc/hosts, of multicast DNS, of what a cache gives without a DNS message (nscd,
nss-resolve), and of what was looked up before the tool began. The time is from
the query to its answer.

-c tells 50,000 combinations apart; what comes after is counted together, as
<others>, and with --json with null for both addresses and ports.`,
	Requirements: `Linux 5.10 or later with BTF (or --btf) and BPF ring buffers. Root, or CAP_BPF and
CAP_PERFMON, with -d and --domains CAP_NET_ADMIN too; kprobe mode needs
CAP_SYS_ADMIN where kernel.perf_event_paranoid is 3, as on Debian. --preflight
tells what is there.`,
	SeeAlso: []string{"connect(2)", "tcp(7)", "ss(8)", "bpf(2)", "capabilities(7)"},
}
