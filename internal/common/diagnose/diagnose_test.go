package diagnose

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

const (
	bpfOnly  = Caps(1 << Bpf)
	tracing  = Caps(1<<Bpf | 1<<Perfmon)
	allOfThe = Caps(1<<41 - 1)
)

// healthy is a Debian 12 host on which root may do everything.
func healthy() System {
	return System{
		Release: "6.1.0-30-amd64", Program: "/usr/sbin/opensnoop", Caps: allOfThe, CapsKnown: true, Memlock: 8 << 20,
		Lockdown: LockdownNone, SecurityModules: []string{"lockdown", "capability"},
		UnprivilegedBPFDisabled: 2, PerfEventParanoid: 2, BTF: Yes, Kprobes: Yes, Tracefs: TracefsReadable,
	}
}

// memlockText is what the library makes of any EPERM.
func memlockText(err error) error {
	return fmt.Errorf("load program: %w (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", err)
}

func rejected(cause error, log ...string) error {
	return fmt.Errorf("program x: %w", &ebpf.VerifierError{Cause: cause, Log: log})
}

var situations = []struct {
	name   string
	change func(s *System)
	kind   Kind
	err    error
	want   string // of Error(), after "load it: "
}{
	// The capability matrix.
	{
		"nobody, map", func(s *System) { s.UID, s.Caps = 65534, 0 }, Map, memlockText(unix.EPERM),
		"needs CAP_BPF [operation not permitted]; run as root, or once as root: setcap cap_bpf+ep /usr/sbin/opensnoop",
	},
	{
		"nobody, raw tracepoint", func(s *System) { s.UID, s.Caps = 65534, 0 }, RawTracepoint, memlockText(unix.EPERM),
		"needs CAP_BPF and CAP_PERFMON [operation not permitted]; run as root, or once as root: setcap cap_bpf,cap_perfmon+ep /usr/sbin/opensnoop",
	},
	{
		"nobody with CAP_BPF, raw tracepoint", func(s *System) { s.UID, s.Caps = 65534, bpfOnly }, RawTracepoint, memlockText(unix.EPERM),
		"needs CAP_PERFMON [operation not permitted]; run as root, or once as root: setcap cap_bpf,cap_perfmon+ep /usr/sbin/opensnoop",
	},
	{
		"nobody with CAP_SYS_ADMIN alone has the others", func(s *System) { s.UID, s.Caps = 65534, 1<<SysAdmin }, RawTracepoint, memlockText(unix.EPERM),
		"not permitted by this kernel (6.1.0-30-amd64), although CAP_BPF and CAP_PERFMON are there [operation not permitted]; use another --attach mode",
	},
	{
		"tracepoint, tracefs not readable", func(s *System) { s.UID, s.Caps, s.Tracefs = 65534, tracing, TracefsUnreadable }, Tracepoint,
		&fs.PathError{Op: "open", Path: "/sys/kernel/tracing/events/syscalls/sys_enter_openat/id", Err: unix.EACCES},
		"needs CAP_DAC_READ_SEARCH [permission denied]; run as root, or once as root: setcap cap_bpf,cap_perfmon,cap_dac_read_search+ep /usr/sbin/opensnoop",
	},
	{
		"perf event, Debian's paranoid", func(s *System) { s.UID, s.Caps, s.PerfEventParanoid = 65534, tracing, 3 }, PerfEvent, unix.EACCES,
		"needs CAP_SYS_ADMIN, as kernel.perf_event_paranoid is 3 [permission denied]; run as root, or once as root: " +
			"setcap cap_bpf,cap_perfmon,cap_sys_admin+ep /usr/sbin/opensnoop (without cap_sys_admin after sysctl -w kernel.perf_event_paranoid=2)",
	},
	{
		"kprobe, nobody, Debian's paranoid", func(s *System) { s.UID, s.Caps, s.PerfEventParanoid, s.Program = 1000, 0, 3, "" }, Kprobe, unix.EPERM,
		"needs CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN, as kernel.perf_event_paranoid is 3 [operation not permitted]; run as root, or once as root: " +
			"setcap cap_bpf,cap_perfmon,cap_sys_admin+ep FILE (without cap_sys_admin after sysctl -w kernel.perf_event_paranoid=2)",
	},
	{
		"raw tracepoint does not care for paranoid", func(s *System) { s.UID, s.Caps, s.PerfEventParanoid = 65534, bpfOnly, 3 }, RawTracepoint, unix.EPERM,
		"needs CAP_PERFMON [operation not permitted]; run as root, or once as root: setcap cap_bpf,cap_perfmon+ep /usr/sbin/opensnoop",
	},
	{
		"root in a container without capabilities", func(s *System) { s.Caps, s.Seccomp = 0xa80425fb, true }, Fentry, memlockText(unix.EPERM),
		"needs CAP_BPF and CAP_PERFMON [operation not permitted]; give them to the container (--cap-add BPF --cap-add PERFMON) or service, or run it on the host",
	},
	{
		"root in a container, Debian's paranoid", func(s *System) { s.Caps, s.PerfEventParanoid = tracing, 3 }, Kprobe, unix.EACCES,
		"needs CAP_SYS_ADMIN, as kernel.perf_event_paranoid is 3 [permission denied]; give them to the container (--cap-add SYS_ADMIN) or service, " +
			"or run it on the host; CAP_SYS_ADMIN is not needed after sysctl -w kernel.perf_event_paranoid=2",
	},
	{
		"rootless container", func(s *System) { s.UserNamespace = true }, RawTracepoint, memlockText(unix.EPERM),
		"not permitted inside a user namespace, whose capabilities do not count for tracing [operation not permitted]; run it on the host as root, not in a rootless container",
	},
	{
		"a feature taken for missing, by lack of capabilities", func(s *System) { s.UID, s.Caps = 65534, 0 }, RawTracepoint,
		fmt.Errorf("BTF: %w", ebpf.ErrNotSupported),
		"needs CAP_BPF and CAP_PERFMON; run as root, or once as root: setcap cap_bpf,cap_perfmon+ep /usr/sbin/opensnoop",
	},
	{
		"no /proc", func(s *System) { s.CapsKnown, s.Caps = false, 0 }, Map, unix.EPERM,
		"not permitted; which capabilities this process has is unknown without /proc [operation not permitted]; mount /proc, or run as root",
	},

	{
		"statistics", func(s *System) { s.UID, s.Caps = 65534, tracing }, Stats, unix.EPERM,
		"needs CAP_SYS_ADMIN [operation not permitted]; run as root, or once as root: setcap cap_sys_admin+ep /usr/sbin/opensnoop",
	},

	// What stops root.
	{
		"confidentiality, kprobe", func(s *System) { s.Lockdown = Confidentiality }, Kprobe, unix.EPERM,
		"kernel lockdown is in confidentiality mode, which refuses kprobes [operation not permitted]; " + bootUnlocked,
	},
	{
		"confidentiality, tracefs", func(s *System) { s.Lockdown, s.Tracefs = Confidentiality, TracefsUnreadable }, Tracepoint,
		&fs.PathError{Op: "open", Path: "/sys/kernel/tracing/events", Err: unix.EPERM},
		"kernel lockdown is in confidentiality mode, which refuses tracepoints [operation not permitted]; " + bootUnlocked,
	},
	{
		"confidentiality, helper", func(s *System) { s.Lockdown = Confidentiality }, RawTracepoint,
		rejected(unix.EINVAL, "0: (bf) r1 = r10", "program of this type cannot use helper bpf_probe_read_kernel#113", "processed 3 insns"),
		"kernel lockdown is in confidentiality mode, which keeps programs from reading kernel memory [invalid argument]; " + bootUnlocked,
	},
	{
		"a helper that an older kernel lacks", func(s *System) {}, RawTracepoint,
		rejected(unix.EINVAL, "unknown func bpf_loop#181"),
		"this kernel (6.1.0-30-amd64) does not let such a program use the helper bpf_loop [invalid argument]; use another --attach mode",
	},
	{
		"memory limit before 5.11", func(s *System) { s.Release, s.Memlock = "5.10.0-28-cloud-amd64", 64<<10 }, Map, memlockText(unix.EPERM),
		"the limit on locked memory is 64 KiB, and this kernel (5.10.0-28-cloud-amd64) counts BPF memory against it [operation not permitted]; " +
			"run as root, or raise it: ulimit -l unlimited",
	},
	{
		"no memory limit before 5.11", func(s *System) { s.Release, s.Memlock = "5.10.0-28-cloud-amd64", Unlimited }, Map, memlockText(unix.EPERM),
		"not permitted by this kernel (5.10.0-28-cloud-amd64), although CAP_BPF is there [operation not permitted]",
	},
	{
		"seccomp filter", func(s *System) { s.Seccomp = true }, Map, memlockText(unix.EPERM),
		"not permitted, although CAP_BPF is there; a seccomp filter is on, which may be the cause [operation not permitted]; " +
			"run it outside of the container, or with a seccomp profile that allows bpf and perf_event_open",
	},
	{
		"security module", func(s *System) { s.SecurityModules = []string{"capability", "yama", "selinux", "bpf"} }, Map, unix.EACCES,
		"not permitted by this kernel (6.1.0-30-amd64), although CAP_BPF is there [permission denied]; " +
			"a security module (selinux, bpf) may be the cause: look into the audit log",
	},
	{
		"hardened kernel, fentry", func(s *System) { s.Release, s.Lockdown = "6.18.44", LockdownUnknown }, Fentry, memlockText(unix.EPERM),
		"this kernel (6.18.44) refuses fentry programs, although CAP_BPF and CAP_PERFMON are there [operation not permitted]; use another --attach mode",
	},
	{
		"no kprobes", func(s *System) { s.Kprobes = No }, Kprobe, fmt.Errorf("token x: %w", fs.ErrNotExist),
		noKprobes + "; use another --attach mode",
	},
	{
		"no kprobes, no capabilities either", func(s *System) { s.Kprobes, s.Caps = No, 0 }, Kprobe, unix.EPERM,
		noKprobes + " [operation not permitted]; use another --attach mode",
	},
	{
		"no bpf", func(s *System) {}, Map, unix.ENOSYS,
		"this kernel lacks the system call for it (CONFIG_BPF_SYSCALL, CONFIG_PERF_EVENTS), or a seccomp filter hides it [function not implemented]; " +
			"try it outside of the container, or on another kernel",
	},

	// What the kernel lacks, by kind.
	{
		"fentry on arm64 6.1", func(s *System) {}, Fentry, fmt.Errorf("create raw tracepoint: %w", ebpf.ErrNotSupported),
		"this kernel (6.1.0-30-amd64) does not support fentry programs on that function; use another --attach mode",
	},
	{
		"fentry, ENOTSUPP", func(s *System) {}, Fentry, syscall.Errno(524),
		"this kernel (6.1.0-30-amd64) does not support fentry programs on that function [not supported]; use another --attach mode",
	},
	{
		"fentry, function missing", func(s *System) {}, Fentry, fmt.Errorf("attach target func x: %w", btf.ErrNotFound),
		"this kernel has no such function for fentry programs [attach target func x: not found]; use another --attach mode",
	},
	{
		"fentry, live patch", func(s *System) {}, Fentry, unix.EBUSY,
		"the function is held by a live patch or another tracer [device or resource busy]; use another --attach mode",
	},
	{
		"cgroup program, nobody who may trace", func(s *System) { s.UID, s.Caps = 65534, tracing }, Cgroup, unix.EPERM,
		"needs CAP_NET_ADMIN [operation not permitted]; run as root, or once as root: setcap cap_bpf,cap_net_admin+ep /usr/sbin/opensnoop",
	},
	{
		"cgroup program beside one that wants to be alone", func(s *System) {}, Cgroup, unix.EPERM,
		"not permitted, although CAP_BPF and CAP_NET_ADMIN are there; a program that is attached to the root of the cgroups already may allow no other " +
			"(bpftool cgroup tree shows it) [operation not permitted]",
	},
	{
		"cgroup program on a kernel without", func(s *System) {}, Cgroup, unix.EINVAL,
		"this kernel (6.1.0-30-amd64) does not run programs on the packets of cgroups (CONFIG_CGROUP_BPF) [invalid argument]",
	},
	{
		"fentry without BTF", func(s *System) { s.BTF = No }, Fentry, fmt.Errorf("no BTF found: %w", ebpf.ErrNotSupported),
		"this kernel has no BTF (no /sys/kernel/btf/vmlinux: CONFIG_DEBUG_INFO_BTF); use --attach kprobe or tracepoint, with --btf FILE",
	},
	{
		"tp_btf without BTF", func(s *System) { s.BTF = No }, RawTracepoint, fmt.Errorf("no BTF found: %w", ebpf.ErrNotSupported),
		"this kernel has no BTF (no /sys/kernel/btf/vmlinux: CONFIG_DEBUG_INFO_BTF); use --attach kprobe or tracepoint, with --btf FILE",
	},
	{
		"no BTF", func(s *System) { s.BTF = No }, BTF, fmt.Errorf("no BTF found\nfor kernel: %w", ebpf.ErrNotSupported),
		"this kernel has no BTF (no /sys/kernel/btf/vmlinux: CONFIG_DEBUG_INFO_BTF); give the BTF of this very kernel with --btf FILE",
	},
	{
		"the wrong --btf FILE", func(s *System) { s.BTF = No }, BTF, fmt.Errorf("relocate:\ntype task_struct: %w", btf.ErrNotFound),
		"this kernel's BTF lacks what the tool needs [relocate: type task_struct: not found]; give the BTF of this very kernel with --btf FILE",
	},
	{
		"kprobe, function missing on 5.10", func(s *System) {}, Kprobe, unix.EINVAL,
		"this kernel has no such function, or does not let it be probed [invalid argument]; use another --attach mode",
	},
	{
		"raw tracepoint missing", func(s *System) {}, RawTracepoint, unix.ENOENT,
		"this kernel has no such tracepoint [no such file or directory]",
	},
	{
		"tracefs not mounted", func(s *System) { s.Tracefs = TracefsUnmounted }, Tracepoint, fs.ErrNotExist,
		"tracefs is not mounted at /sys/kernel/tracing; mount it: mount -t tracefs tracefs /sys/kernel/tracing",
	},
	{
		"tracefs not mounted, in the library's words", func(s *System) { s.Tracefs = TracefsUnmounted }, Tracepoint,
		errors.New("neither debugfs nor tracefs are mounted"),
		"tracefs is not mounted at /sys/kernel/tracing; mount it: mount -t tracefs tracefs /sys/kernel/tracing",
	},
	{
		"no tracefs", func(s *System) { s.Tracefs = TracefsUnsupported }, Tracepoint, fs.ErrNotExist,
		"this kernel was built without tracefs (CONFIG_FTRACE); use another --attach mode",
	},
	{
		"tracepoint missing", func(s *System) {}, Tracepoint, fs.ErrNotExist,
		"this kernel has no such tracepoint; use another --attach mode",
	},
	{
		"no hardware events", func(s *System) {}, PerfEvent, unix.ENOENT,
		"this machine has no such perf event (virtual machines often lack hardware events) [no such file or directory]; take one that the kernel counts, such as cpu-clock",
	},
	{
		"ring buffer before 5.8", func(s *System) { s.Release = "5.4.0-190-generic" }, Map, unix.EINVAL,
		"this kernel (5.4.0-190-generic) does not support such a map; ring buffers came with Linux 5.8 [invalid argument]",
	},
}

func TestExplain(t *testing.T) {
	for _, c := range situations {
		s := healthy()
		c.change(&s)
		got := s.Explain("load it", c.kind, c.err)
		var refusal *Refusal
		if !errors.As(got, &refusal) {
			t.Errorf("%s: %v is not a Refusal", c.name, got)
			continue
		}
		if want := "load it: " + c.want; got.Error() != want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, want)
		}
		if !errors.Is(got, c.err) {
			t.Errorf("%s: the cause is not wrapped", c.name)
		}
		if text := got.Error(); strings.Contains(text, "MEMLOCK") || strings.ContainsAny(text, "\n\r") {
			t.Errorf("%s: %q", c.name, text)
		}
	}
}

func TestExplainFailuresOfOurs(t *testing.T) {
	bug := rejected(unix.EACCES, "R1 invalid mem access 'scalar'", "processed 9 insns")
	for _, c := range []struct {
		name string
		kind Kind
		err  error
		want string
	}{
		{"verifier", RawTracepoint, bug, "which is a bug: please report it with the output of -v: program x: "},
		{"wrong ring size", Map, unix.EINVAL, "load it: invalid argument"},
		{"no memory", Map, unix.ENOMEM, "load it: cannot allocate memory"},
		{"perf event flags", PerfEvent, unix.EINVAL, "load it: invalid argument"},
	} {
		s := healthy()
		got := s.Explain("load it", c.kind, c.err)
		var refusal *Refusal
		if errors.As(got, &refusal) || !errors.Is(got, c.err) || !strings.Contains(got.Error(), c.want) {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}

func TestExplainLeavesAlone(t *testing.T) {
	if err := Explain("load it", Map, nil); err != nil {
		t.Errorf("nil became %v", err)
	}
	first := fmt.Errorf("attach: %w", &Refusal{Tried: "load it", Missing: "needs x"})
	if got := Explain("again", Map, first); got != first {
		t.Errorf("%v was explained again: %v", first, got)
	}
	if got := first.Error(); got != "attach: load it: needs x" {
		t.Errorf("without cause and remedy: %q", got)
	}
}

func TestProgramName(t *testing.T) {
	for program, want := range map[string]string{
		"": "FILE", "/usr/bin/opensnoop": "/usr/bin/opensnoop",
		"/home/a b/x": `"/home/a b/x"`, "/tmp/\x1b[2J": `"/tmp/\x1b[2J"`,
	} {
		s := System{Program: program}
		if got := s.programName(); got != want {
			t.Errorf("programName(%q) = %s, want %s", program, got, want)
		}
	}
}

func TestSummary(t *testing.T) {
	find := func(s System, name string) Fact {
		t.Helper()
		for _, f := range s.Summary() {
			if f.Name == name {
				return f
			}
		}
		t.Fatalf("no fact %q", name)
		return Fact{}
	}
	for _, f := range func() []Fact { s := healthy(); return s.Summary() }() {
		if f.OK != Yes || f.Remedy != "" || f.Detail == "" {
			t.Errorf("root on a healthy host: %+v", f)
		}
	}
	for _, f := range readSystem(os.DirFS(t.TempDir())).Summary() {
		// These two read as what they are by default, also without /proc.
		if f.Name != "user namespace" && f.Name != "seccomp" && f.OK != Unknown || f.Remedy != "" {
			t.Errorf("without /proc and /sys: %+v", f)
		}
	}
	for _, c := range []struct {
		fact   string
		change func(s *System)
		ok     State
		remedy string
	}{
		{"kernel", func(s *System) { s.Release = "5.4.0" }, No, "use Linux 5.8 or newer, which has BPF ring buffers"},
		{"CAP_PERFMON", func(s *System) { s.UID, s.Caps = 1000, bpfOnly }, No, "run as root, or add CAP_PERFMON with setcap"},
		{"CAP_PERFMON", func(s *System) { s.Caps = bpfOnly }, No, "give it to the container or service"},
		{"CAP_PERFMON", func(s *System) { s.Caps = 1 << SysAdmin }, Yes, ""},
		{"CAP_SYS_RESOURCE", func(s *System) { s.Release, s.Caps = "5.10.1", tracing }, No, "give it to the container or service"},
		{"user namespace", func(s *System) { s.UserNamespace = true }, No, "run it on the host"},
		{"seccomp", func(s *System) { s.Seccomp = true }, Unknown, ""},
		{"lockdown", func(s *System) { s.Lockdown = Integrity }, Yes, ""},
		{"lockdown", func(s *System) { s.Lockdown = Confidentiality }, No, bootUnlocked},
		{"lockdown", func(s *System) { s.Lockdown = LockdownUnknown }, Unknown, ""},
		{"unprivileged_bpf_disabled", func(s *System) { s.Caps = 0 }, No, "give it to the container or service"},
		{"unprivileged_bpf_disabled", func(s *System) { s.Caps, s.UnprivilegedBPFDisabled = 0, 0 }, Yes, ""},
		{"perf_event_paranoid", func(s *System) { s.PerfEventParanoid, s.Caps = 3, tracing }, No, "sysctl -w kernel.perf_event_paranoid=2, or run as root"},
		{"perf_event_paranoid", func(s *System) { s.PerfEventParanoid = 3 }, Yes, ""},
		{"BTF", func(s *System) { s.BTF = No }, No, "give the BTF of this very kernel with --btf FILE"},
		{"kprobes", func(s *System) { s.Kprobes = No }, No, otherMode},
		{"tracefs", func(s *System) { s.Tracefs = TracefsUnmounted }, No, mountTracefs},
		{"tracefs", func(s *System) { s.Tracefs, s.UID = TracefsUnreadable, 1000 }, No, "run as root, or add CAP_DAC_READ_SEARCH with setcap"},
		{"tracefs", func(s *System) { s.Tracefs = TracefsUnsupported }, No, otherMode},
	} {
		s := healthy()
		c.change(&s)
		if f := find(s, c.fact); f.OK != c.ok || f.Remedy != c.remedy {
			t.Errorf("%s: %+v, want %v and remedy %q", c.fact, f, c.ok, c.remedy)
		}
	}
}
