// Package diagnose says in one line why the kernel refused something, and what
// to do about it.
//
// The kernel's own answer to a tracer is nearly always EPERM or EINVAL, for
// dozens of causes. [Explain] looks at the system to find which one it is: the
// capabilities of the process, lockdown, sysctls, seccomp, what this kernel was
// built with. It states as fact only what it has read; where a cause remains a
// possibility it says so.
package diagnose

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// Refusal is the error for what this kernel or these privileges do not allow.
// It reads as one line in lower case, such as
//
//	load tracepoint program: needs CAP_BPF and CAP_PERFMON [operation not permitted]; run as root or …
type Refusal struct {
	Tried   string // what was attempted: "load tracepoint program"
	Missing string // what stands in the way: "needs CAP_BPF and CAP_PERFMON"
	Remedy  string // what the user can do; empty if there is nothing
	Err     error  // what the kernel or the library answered
}

func (r *Refusal) Error() string {
	text := r.Tried + ": " + r.Missing
	if said := answer(r.Err); said != "" {
		text += " [" + said + "]"
	}
	if r.Remedy != "" {
		text += "; " + r.Remedy
	}
	return text
}

// Unwrap gives the answer of the kernel or the library. Its text is not for
// users: the library adds advice on memory limits to every EPERM.
func (r *Refusal) Unwrap() error { return r.Err }

// answer gives the errno's text, or what was not found in BTF. Of other errors
// of the library nothing: they tell of what it tried last, not of the cause.
func answer(err error) string {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno) && errno == enotsupp:
		return "not supported" // the C library has no text for it
	case errno != 0:
		return errno.Error()
	case errors.Is(err, btf.ErrNotFound):
		return strings.Join(strings.Fields(err.Error()), " ")
	}
	return ""
}

// enotsupp is the kernel's internal ENOTSUPP, which bpf(2) lets through.
const enotsupp = syscall.Errno(524)

// Kind is what was attempted, by what it asks of the system.
type Kind int

// The kinds of attempts.
const (
	Fentry        Kind = iota // fentry and fexit programs
	Kprobe                    // kprobes and kretprobes, through perf_event_open
	RawTracepoint             // raw_tp and tp_btf programs: no tracefs, no perf
	Tracepoint                // classic tracepoints: tracefs and perf_event_open
	PerfEvent                 // sampling through perf_event_open
	Map                       // creating a map
	BTF                       // reading the kernel's BTF, relocating by it
	Stats                     // turning on the kernel's statistics of BPF programs
	Cgroup                    // programs on the packets of a cgroup's sockets
)

// String names the kind as users know it: "fentry program".
func (k Kind) String() string {
	switch k {
	case Fentry:
		return "fentry program"
	case Kprobe:
		return "kprobe"
	case RawTracepoint:
		return "raw tracepoint program"
	case Tracepoint:
		return "tracepoint"
	case PerfEvent:
		return "perf event"
	case Map:
		return "BPF map"
	case BTF:
		return "BTF"
	case Stats:
		return "BPF statistics"
	case Cgroup:
		return "cgroup program"
	}
	return fmt.Sprintf("kind %d", int(k))
}

// perf reports whether the kind goes through perf_event_open.
func (k Kind) perf() bool { return k == Kprobe || k == Tracepoint || k == PerfEvent }

// Explain turns err, the answer to what was tried ("load tracepoint program"),
// into a [*Refusal] if this kernel or these privileges are the cause. Other
// failures are wrapped with what was tried. A rejection by the verifier is one
// of these: it is a bug of the tool. Nil stays nil, and what was explained once
// is not explained again.
func Explain(tried string, kind Kind, err error) error {
	if err == nil {
		return nil
	}
	return ReadSystem("/").Explain(tried, kind, err)
}

// Explain is the function of the same name, by the facts in s.
func (s *System) Explain(tried string, kind Kind, err error) error {
	if err == nil {
		return nil
	}
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return err
	}
	missing, remedy := s.cause(kind, err)
	if missing != "" {
		return &Refusal{Tried: tried, Missing: missing, Remedy: remedy, Err: err}
	}
	if verifierLog(err) != "" {
		return fmt.Errorf("%s: the kernel's verifier rejected the program, which is a bug: please report it with the output of -v: %w", tried, err)
	}
	return fmt.Errorf("%s: %w", tried, err)
}

// verifierLog gives what the verifier said, without its closing statistics.
func verifierLog(err error) string {
	var verifier *ebpf.VerifierError
	if !errors.As(err, &verifier) {
		return ""
	}
	lines := slices.DeleteFunc(slices.Clone(verifier.Log), func(line string) bool {
		return strings.HasPrefix(line, "processed ")
	})
	return strings.Join(lines, "\n")
}

// cause gives what is missing and the remedy, or "" if neither this kernel nor
// these privileges are to blame.
func (s *System) cause(kind Kind, err error) (missing, remedy string) {
	// What the kernel was built without no privilege brings back.
	if kind == Kprobe && s.Kprobes == No {
		return noKprobes, otherMode
	}
	// What is not found in BTF was looked for in some: that of --btf FILE.
	if (kind == Fentry || kind == BTF) && s.BTF == No && verifierLog(err) == "" && !errors.Is(err, btf.ErrNotFound) {
		return s.noBTF(kind)
	}

	refused := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
	unsupported := errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, enotsupp) || errors.Is(err, unix.EOPNOTSUPP)

	if log := verifierLog(err); log != "" && !errors.Is(err, unix.EPERM) {
		return s.helperRefused(log)
	}
	switch {
	case refused:
		return s.permission(kind)
	case unsupported && len(s.lacking(kind)) > 0:
		// The library tests for features by trying them, and takes a refusal
		// for a lack here and there.
		return s.permission(kind)
	case errors.Is(err, unix.ENOSYS):
		return "this kernel lacks the system call for it (CONFIG_BPF_SYSCALL, CONFIG_PERF_EVENTS), or a seccomp filter hides it",
			"try it outside of the container, or on another kernel"
	}

	switch kind {
	case Fentry:
		switch {
		case errors.Is(err, unix.EBUSY):
			return "the function is held by a live patch or another tracer", otherMode
		case errors.Is(err, btf.ErrNotFound), errors.Is(err, fs.ErrNotExist):
			return "this kernel has no such function for fentry programs", otherMode
		case unsupported, errors.Is(err, unix.EINVAL):
			return "this kernel (" + s.Release + ") does not support fentry programs on that function", otherMode
		}
	case Kprobe:
		switch {
		case errors.Is(err, unix.EBUSY):
			return "the function is held by a live patch or another tracer", otherMode
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EILSEQ):
			// Kernels to 5.10 say EINVAL of a return probe on a missing
			// function; all say it of functions that must not be probed.
			return "this kernel has no such function, or does not let it be probed", otherMode
		case unsupported:
			return "this kernel (" + s.Release + ") does not support such a kprobe", otherMode
		}
	case RawTracepoint:
		switch {
		case (unsupported || errors.Is(err, btf.ErrNotFound)) && s.BTF == No:
			return s.noBTF(kind)
		case errors.Is(err, btf.ErrNotFound), errors.Is(err, fs.ErrNotExist):
			return "this kernel has no such tracepoint", ""
		case unsupported, errors.Is(err, unix.EINVAL):
			return "this kernel (" + s.Release + ") does not support such a program", otherMode
		}
	case Tracepoint:
		// The library's error for a missing tracefs has no errno.
		notFound := errors.Is(err, fs.ErrNotExist) || !errors.As(err, new(syscall.Errno))
		switch {
		case notFound && s.Tracefs == TracefsUnmounted:
			return noTracefs, mountTracefs
		case notFound && s.Tracefs == TracefsUnsupported:
			return unbuiltTracefs, otherMode
		case errors.Is(err, fs.ErrNotExist):
			return "this kernel has no such tracepoint", otherMode
		case unsupported:
			return "this kernel (" + s.Release + ") does not support such a tracepoint", otherMode
		}
	case PerfEvent:
		if unsupported || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return "this machine has no such perf event (virtual machines often lack hardware events)",
				"take one that the kernel counts, such as cpu-clock"
		}
	case Map:
		// EINVAL of a kernel that knows the map's type is a wrong size: ours.
		if unsupported || errors.Is(err, unix.EINVAL) && s.olderThan(5, 8) {
			return "this kernel (" + s.Release + ") does not support such a map; ring buffers came with Linux 5.8", ""
		}
	case Stats:
		if unsupported || errors.Is(err, unix.EINVAL) {
			return "this kernel (" + s.Release + ") does not keep such statistics; they came with Linux 5.8", ""
		}
	case Cgroup:
		if unsupported || errors.Is(err, unix.EINVAL) {
			return "this kernel (" + s.Release + ") does not run programs on the packets of cgroups (CONFIG_CGROUP_BPF)", ""
		}
	case BTF:
		if unsupported || errors.Is(err, btf.ErrNotFound) {
			return "this kernel's BTF lacks what the tool needs", "give the BTF of this very kernel with --btf FILE"
		}
	}
	return "", ""
}

const (
	otherMode = "use another --attach mode"

	noKprobes      = "this kernel was built without kprobes (CONFIG_KPROBES, CONFIG_KPROBE_EVENTS)"
	noTracefs      = "tracefs is not mounted at /sys/kernel/tracing"
	mountTracefs   = "mount it: mount -t tracefs tracefs /sys/kernel/tracing"
	unbuiltTracefs = "this kernel was built without tracefs (CONFIG_FTRACE)"
)

func (s *System) noBTF(kind Kind) (missing, remedy string) {
	missing = "this kernel has no BTF (no /sys/kernel/btf/vmlinux: CONFIG_DEBUG_INFO_BTF)"
	if kind == BTF {
		return missing, "give the BTF of this very kernel with --btf FILE"
	}
	// These programs name their function by its number in the kernel's own BTF,
	// so a file does not help.
	return missing, "use --attach kprobe or tracepoint, with --btf FILE"
}

// helperRefused reads the verifier's log for the two complaints that are about
// the kernel and not about the program: a helper that lockdown takes away, and
// one that this kernel does not have.
func (s *System) helperRefused(log string) (missing, remedy string) {
	// "unknown func" until Linux 6.8, "program of this type cannot use helper" since.
	if !strings.Contains(log, "unknown func bpf_") && !strings.Contains(log, "cannot use helper bpf_") {
		return "", ""
	}
	if s.Lockdown == Confidentiality && strings.Contains(log, "bpf_probe_read_kernel") {
		return "kernel lockdown is in confidentiality mode, which keeps programs from reading kernel memory", bootUnlocked
	}
	_, name, _ := strings.Cut(log, "bpf_")
	name, _, _ = strings.Cut(name, "#")
	return "this kernel (" + s.Release + ") does not let such a program use the helper bpf_" + name, otherMode
}

const bootUnlocked = "boot with lockdown=integrity or none (a kernel under Secure Boot may not allow it)"

// permission explains EPERM and EACCES: first what the process lacks, then what
// stops even root.
func (s *System) permission(kind Kind) (missing, remedy string) {
	if !s.CapsKnown {
		return "not permitted; which capabilities this process has is unknown without /proc", "mount /proc, or run as root"
	}
	if s.UserNamespace {
		return "not permitted inside a user namespace, whose capabilities do not count for tracing",
			"run it on the host as root, not in a rootless container"
	}
	if lacking := s.lacking(kind); len(lacking) > 0 {
		missing = "needs " + andList(lacking)
		if kind.perf() && slices.Contains(lacking, SysAdmin) {
			missing += fmt.Sprintf(", as kernel.perf_event_paranoid is %d", s.PerfEventParanoid)
		}
		return missing, s.gain(kind, lacking)
	}
	if kind.perf() && s.Lockdown == Confidentiality {
		return "kernel lockdown is in confidentiality mode, which refuses " + kind.String() + "s", bootUnlocked
	}
	// Which kernels count BPF memory against the limit shows in nothing but
	// their version: commits 97306be45fbe and following, in 5.11.
	if s.olderThan(5, 11) && !kind.perf() && s.Memlock < Unlimited {
		return fmt.Sprintf("the limit on locked memory is %d KiB, and this kernel (%s) counts BPF memory against it", s.Memlock/1024, s.Release),
			"run as root, or raise it: ulimit -l unlimited"
	}
	held := "although " + andList(needs(kind)) + " are there"
	if len(needs(kind)) == 1 {
		held = "although " + needs(kind)[0].String() + " is there"
	}
	if s.Seccomp {
		return "not permitted, " + held + "; a seccomp filter is on, which may be the cause",
			"run it outside of the container, or with a seccomp profile that allows bpf and perf_event_open"
	}
	if kind == Cgroup {
		return "not permitted, " + held + "; a program that is attached to the root of the cgroups already may allow no other (bpftool cgroup tree shows it)", ""
	}
	if kind == Fentry {
		return "this kernel (" + s.Release + ") refuses fentry programs, " + held, otherMode
	}
	missing = "not permitted by this kernel (" + s.Release + "), " + held
	if modules := s.confiningModules(); modules != "" {
		return missing, "a security module (" + modules + ") may be the cause: look into the audit log"
	}
	if kind.perf() || kind == RawTracepoint {
		return missing, otherMode
	}
	return missing, ""
}

// gain says how to come by what the kind needs.
func (s *System) gain(kind Kind, lacking []Capability) string {
	paranoid := kind.perf() && slices.Contains(lacking, SysAdmin)
	if s.UID == 0 {
		// Root without capabilities is a container or a confined service.
		var add []string
		for _, c := range lacking {
			add = append(add, "--cap-add "+strings.TrimPrefix(c.String(), "CAP_"))
		}
		remedy := "give them to the container (" + strings.Join(add, " ") + ") or service, or run it on the host"
		if paranoid {
			remedy += "; CAP_SYS_ADMIN is not needed after sysctl -w kernel.perf_event_paranoid=2"
		}
		return remedy
	}
	// setcap replaces what the file had, so all that is needed is named.
	var names []string
	for _, c := range needs(kind) {
		names = append(names, strings.ToLower(c.String()))
	}
	for _, c := range lacking {
		if !slices.Contains(needs(kind), c) {
			names = append(names, strings.ToLower(c.String()))
		}
	}
	remedy := "run as root, or once as root: setcap " + strings.Join(names, ",") + "+ep " + s.programName()
	if paranoid {
		remedy += " (without cap_sys_admin after sysctl -w kernel.perf_event_paranoid=2)"
	}
	return remedy
}

// programName is the file to give capabilities to, as a shell takes it.
func (s *System) programName() string {
	switch {
	case s.Program == "":
		return "FILE"
	case strings.ContainsFunc(s.Program, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune("'\"\\$`!*?[](){}<>|&;#~", r)
	}):
		return fmt.Sprintf("%q", s.Program)
	}
	return s.Program
}

// needs gives the capabilities that a kind takes on any kernel since 5.8.
func needs(kind Kind) []Capability {
	switch kind {
	case Map, BTF:
		return []Capability{Bpf}
	case Stats:
		return []Capability{SysAdmin}
	case Cgroup:
		return []Capability{Bpf, NetAdmin}
	}
	return []Capability{Bpf, Perfmon}
}

// lacking gives all that the process lacks for a kind here, at once, so that
// the user does not meet one obstacle after another.
func (s *System) lacking(kind Kind) []Capability {
	var lacking []Capability
	for _, c := range needs(kind) {
		if !s.Caps.Has(c) {
			lacking = append(lacking, c)
		}
	}
	if kind == Tracepoint && s.Tracefs == TracefsUnreadable && !s.Caps.Has(DacReadSearch) {
		lacking = append(lacking, DacReadSearch)
	}
	if kind.perf() && s.PerfEventParanoid >= paranoidAny && !s.Caps.Has(SysAdmin) {
		lacking = append(lacking, SysAdmin)
	}
	return lacking
}

// paranoidAny is the level of kernel.perf_event_paranoid that a patch of Debian
// adds: from there on perf_event_open wants CAP_SYS_ADMIN for anything.
const paranoidAny = 3

// confiningModules names the security modules here that can refuse bpf(2).
func (s *System) confiningModules() string {
	var names []string
	for _, m := range s.SecurityModules {
		switch m {
		case "selinux", "apparmor", "smack", "tomoyo", "bpf":
			names = append(names, m)
		}
	}
	return strings.Join(names, ", ")
}

func andList(list []Capability) string {
	text := ""
	for i, c := range list {
		switch {
		case i == 0:
		case i == len(list)-1:
			text += " and "
		default:
			text += ", "
		}
		text += c.String()
	}
	return text
}
