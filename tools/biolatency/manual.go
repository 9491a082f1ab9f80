package main

import manpage "github.com/gobcc/gobcc/internal/common/manual"

// about is what --help and --man say beside the flags.
var about = manpage.Manual{
	Name:    "biolatency",
	Summary: "show how long requests to disks take, as histograms",
	Synopsis: []string{
		"biolatency [options] [INTERVAL [COUNT]]",
		"biolatency [options] [INTERVAL [COUNT]] -- COMMAND [ARG...]",
	},
	Description: `biolatency counts how long the requests to disks take, in the kernel, and prints
a histogram when it ends, or every INTERVAL seconds. It answers whether a disk is
slow, for which operations, and for whom; with --split, whether the requests wait
in the system or in the device.

The latency of a request is the time from its issue to the device to its
completion. With -Q it begins when the request is made, and contains the time in
the queue.

Each request counts once, when all of it is done, for those who issued it: by what
it was when it began, not by what happens to run when it ends. Counts, sums,
minimum and maximum are exact; percentiles are at most 1/16 too large, from a
microsecond on. Between two intervals nothing is lost or counted twice.

With --bio, what is counted are not requests, but the bios that they are made of:
the pieces of work that a file system or program hands in. A bio counts at the
device that it was made for, from when it is handed in till all of it is done, and
what that device makes of it counts at the devices below: so the parts of a stack,
as loop, device mapper, md, zram and disks, are told apart with -D. That contains
the time in queues. What is merged into one request is still several bios, and a
bio that is split into several requests is still one.

With a command, that command is started and its requests are counted, with those
of all that it starts in turn; the exit status is then the command's.

With --live, each interval is a row of a heatmap: time goes down, latency across, and
the shade of a cell tells how many requests took so long; what a shade stands for is
below, and does not change. The scale above the cells goes in powers of two, and has
all latencies that were seen. Each key and phase has a map of its own. On a terminal
the last intervals are shown, as many as have room; Ctrl-C leaves the last picture
there. Elsewhere, as in a file or pipe, each interval is a line, on a scale up to two
minutes, and what is longer is in its last cell.

With --openmetrics, what was counted since the beginning is written to a file with
each table, at once in the place of the one before: for the textfile collector of
Prometheus' node_exporter, as histogram biolatency_seconds and counter
biolatency_errors, labelled by the keys asked for and the phase.

Histograms go to standard output, all else to standard error. All filters work in
the kernel.`,
	JSON: []manpage.Key{
		{Name: "time", Type: "string", Text: "when the interval ended, in UTC"},
		{Name: "kind", Type: "string", Text: "\"histogram\", one for each key and phase; \"error\", the requests that failed on a disk; or \"lost\""},
		{Name: "interval_ns", Type: "integer", Text: "how long the interval was"},
		{Name: "disk", Type: "string, or null", Text: "with -D, and of errors: the disk; null for requests to none, as those to tapes"},
		{Name: "op", Type: "string", Text: "with -F: the operation by the kernel's name: \"read\", \"write_zeroes\""},
		{Name: "flags", Type: "array of strings", Text: "with -F: its flags by the kernel's names: \"sync\", \"fua\""},
		{Name: "cgroup_id", Type: "integer", Text: "with --by cgroup: the cgroup that the request is charged to"},
		{Name: "comm", Type: "string", Text: "with --by comm: the name of the thread that issued it"},
		{Name: "phase", Type: "string", Text: "\"device\", with -Q \"total\", with --split \"queue\" too, with --bio \"bio\""},
		{Name: "unit", Type: "string", Text: "\"ns\": that of all latencies"},
		{Name: "count", Type: "integer", Text: "how many requests; of errors, how many failed with it"},
		{Name: "sum", Type: "integer", Text: "of their latencies"},
		{Name: "min", Type: "integer", Text: "the shortest"},
		{Name: "max", Type: "integer", Text: "the longest"},
		{Name: "p50", Type: "integer", Text: "the median"},
		{Name: "p90", Type: "integer", Text: "what 90 % did not exceed"},
		{Name: "p99", Type: "integer", Text: "what 99 % did not exceed"},
		{Name: "p999", Type: "integer", Text: "what 99.9 % did not exceed"},
		{Name: "errors", Type: "integer", Text: "how many of them failed"},
		{Name: "buckets", Type: "array of objects", Text: "those that are not empty: count latencies are not above le, and above that of the one before; not cumulative"},
		{Name: "error", Type: "string", Text: "of errors: its name, as \"EIO\""},
		{Name: "lost", Type: "integer", Text: "in objects of kind \"lost\": how many requests were lost so far"},
		{Name: "possibly_lost", Type: "integer", Text: "there too: how many more may have been, where the kernel does not tell for certain"},
		{Name: "causes", Type: "object", Text: "there too: the lost requests by cause, as requests_full"},
	},
	Examples: []manpage.Example{
		{Command: "biolatency", Text: "Count the latencies of all disks until Ctrl-C"},
		{Command: "biolatency -mT 1 10", Text: "Show ten histograms in milliseconds, one a second, with the time of day"},
		{Command: "biolatency -D --percentiles 5", Text: "Show for each disk the latencies and their percentiles, every five seconds"},
		{Command: "biolatency --split -d sda", Text: "Show whether the requests to a disk wait before it or in it"},
		{Command: "biolatency --live -d sda", Text: "Watch the latencies of a disk, a row each second"},
		{Command: "biolatency --bio -D --percentiles", Text: "Show what each device of a stack adds: device mapper, md, and the disks below"},
		{Command: "biolatency -F", Text: "Tell reads from writes and flushes"},
		{Command: "biolatency --by cgroup,op 10", Text: "Show which containers have slow disks"},
		{Command: "biolatency -j -D 1 | jq -r 'select(.p99 > 10000000) | .disk'", Text: "List the disks whose p99 is above 10 ms"},
		{Command: "biolatency -D --openmetrics /var/lib/node_exporter/disks.prom 15 >/dev/null", Text: "Have Prometheus collect the latencies of each disk"},
		{Command: "biolatency -- dd if=/dev/sda of=/dev/null iflag=direct count=1000", Text: "Show the latencies of one command"},
	},
	Overhead: `By the kernel's own statistics (--stats), which cost a little themselves, the
programs take 0.8 µs of a request: measured without options, with direct reads of
4 KiB, 37 µs each, on a virtual machine. Nothing passes to the tool but the counts,
once an interval.`,
	Caveats: `Without --bio, only devices with request queues are seen: disks, partitions (as
part of their disk), loop and virtio devices. Those that pass bios on (device mapper,
md, zram) show nothing of their own; the disks below them are seen.

Requests that were issued before the tool began are not counted, nor are those
that end after it: how many the latter are, or had ends that the kernel did not show,
is said at the end. Those that end without having been issued are not counted either;
but where they fail, the errors are, unless only some tasks are asked for.

With --bio, who issues a bio to a lower device is often a thread of the kernel, as
below dm-crypt and loop; -p and --by comm show that thread there. A flush is a write
of nothing, with the flag preflush. The time that the kernel holds a bio back for a
throttled cgroup is not in it. Not seen are requests without bios of their own (as
from ioctl, and the paths below request-based multipath) and pages that go to zram
or brd without a bio (up to 6.2). Older kernels (5.10) do not tell when a
bio ends that others wait for, at devices without request queues: it counts as lost
when it is used again, as end_unseen.

The time in the queue begins when the request is made where the kernel tells that
(since 6.5), else when it is put into a queue: a request that goes to the device at
once has waited for 0. What goes back to the queue is counted once, with the time
in the queue until the first issue, in the device from the last, and in total from
beginning to end. The time that a task waits before the request is made, as for
a throttled cgroup, is in none of them.

A write that the device must not cache is followed by a flush, where the device
knows no better; that flush counts by itself, as one of nobody.

Who issued a request is who issued its first part. Data that was written to files
is written to the disk later, by a thread of the kernel; --by cgroup still finds
the cgroup, and -c counts for it, if the controllers io and memory are on for it;
--by comm and -p show the thread.

--by can tell some hundred combinations apart, 1,024 on small machines; what has no
room is counted as lost.`,
	Requirements: `Linux 5.10 or later with BTF (or --btf). Root, or CAP_BPF and CAP_PERFMON.
--preflight tells what is there.`,
	SeeAlso: []string{"iostat(1)", "blktrace(8)", "bpf(2)", "capabilities(7)"},
}
