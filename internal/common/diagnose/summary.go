package diagnose

import "fmt"

// Fact is one line of a report on the system.
type Fact struct {
	Name   string // what was looked at: "CAP_BPF", "BTF"
	OK     State  // whether it is as tracing wants it
	Detail string // what was found, or what it is for
	Remedy string // what to do if it is not; empty if nothing can be done
}

// Summary gives the facts that decide what can be traced here and how, the most
// decisive first.
func (s *System) Summary() []Fact {
	facts := []Fact{s.kernelFact()}
	for _, c := range []struct {
		capability Capability
		use        string
	}{
		{Bpf, "maps and programs"},
		{Perfmon, "programs that trace"},
		{SysAdmin, "--stats; perf events where perf_event_paranoid is 3"},
		{SysResource, "the memory limit of kernels before 5.11"},
		{DacReadSearch, "tracefs, and cgroup paths"},
		{SysPtrace, "other processes' files in /proc"},
		{Syslog, "addresses of kernel functions"},
	} {
		if c.capability == SysResource && !s.olderThan(5, 11) {
			continue
		}
		facts = append(facts, s.capabilityFact(c.capability, c.use))
	}
	return append(facts, s.namespaceFact(), s.seccompFact(), s.lockdownFact(), s.unprivilegedFact(),
		s.paranoidFact(), s.btfFact(), s.kprobesFact(), s.tracefsFact())
}

func (s *System) kernelFact() Fact {
	f := Fact{Name: "kernel", Detail: s.Release}
	switch {
	case s.Release == "":
	case s.olderThan(5, 8):
		f.OK, f.Remedy = No, "use Linux 5.8 or newer, which has BPF ring buffers"
	default:
		f.OK = Yes
	}
	return f
}

func (s *System) capabilityFact(c Capability, use string) Fact {
	f := Fact{Name: c.String(), Detail: "for " + use}
	switch {
	case !s.CapsKnown:
	case s.Caps.Has(c):
		f.OK = Yes
	default:
		f.OK, f.Remedy = No, s.grant(c)
	}
	return f
}

func (s *System) grant(c Capability) string {
	if s.UID == 0 {
		return "give it to the container or service"
	}
	return "run as root, or add " + c.String() + " with setcap"
}

func (s *System) namespaceFact() Fact {
	f := Fact{Name: "user namespace", OK: Yes, Detail: "the initial one"}
	if s.UserNamespace {
		f.OK, f.Detail, f.Remedy = No, "not the initial one: capabilities do not count for tracing", "run it on the host"
	}
	return f
}

func (s *System) seccompFact() Fact {
	f := Fact{Name: "seccomp", OK: Yes, Detail: "no filter"}
	if s.Seccomp {
		// A filter may well allow what we need: only trying tells.
		f.OK, f.Detail = Unknown, "a filter is on, and may refuse bpf or perf_event_open"
	}
	return f
}

func (s *System) lockdownFact() Fact {
	f := Fact{Name: "lockdown", OK: Yes, Detail: string(s.Lockdown)}
	switch s.Lockdown {
	case LockdownUnknown:
		f.OK, f.Detail = Unknown, "no /sys/kernel/security/lockdown"
	case Confidentiality:
		f.OK, f.Remedy = No, bootUnlocked
	}
	return f
}

func (s *System) unprivilegedFact() Fact {
	f := Fact{Name: "unprivileged_bpf_disabled", OK: Yes}
	if s.UnprivilegedBPFDisabled == UnknownSysctl {
		f.OK = Unknown
		return f
	}
	f.Detail = fmt.Sprintf("%d", s.UnprivilegedBPFDisabled)
	if s.UnprivilegedBPFDisabled != 0 {
		f.Detail += ": bpf needs CAP_BPF"
		if s.CapsKnown && !s.Caps.Has(Bpf) {
			f.OK, f.Remedy = No, s.grant(Bpf)
		}
	}
	return f
}

func (s *System) paranoidFact() Fact {
	f := Fact{Name: "perf_event_paranoid", OK: Yes}
	if s.PerfEventParanoid == UnknownSysctl {
		f.OK = Unknown
		return f
	}
	f.Detail = fmt.Sprintf("%d", s.PerfEventParanoid)
	if s.PerfEventParanoid >= paranoidAny {
		f.Detail += ": kprobes, tracepoints and perf events need CAP_SYS_ADMIN"
		if s.CapsKnown && !s.Caps.Has(SysAdmin) {
			f.OK, f.Remedy = No, "sysctl -w kernel.perf_event_paranoid=2, or run as root"
		}
	}
	return f
}

func (s *System) btfFact() Fact {
	f := Fact{Name: "BTF", OK: s.BTF, Detail: "/sys/kernel/btf/vmlinux"}
	if s.BTF == No {
		f.Detail, f.Remedy = s.noBTF(BTF)
	}
	return f
}

func (s *System) kprobesFact() Fact {
	f := Fact{Name: "kprobes", OK: s.Kprobes, Detail: "/sys/bus/event_source/devices/kprobe"}
	if s.Kprobes == No {
		f.Detail, f.Remedy = noKprobes, otherMode
	}
	return f
}

func (s *System) tracefsFact() Fact {
	f := Fact{Name: "tracefs", Detail: "/sys/kernel/tracing"}
	switch s.Tracefs {
	case TracefsReadable:
		f.OK = Yes
	case TracefsUnreadable:
		f.OK, f.Detail, f.Remedy = No, "/sys/kernel/tracing is not open to this process", s.grant(DacReadSearch)
	case TracefsUnmounted:
		f.OK, f.Detail, f.Remedy = No, noTracefs, mountTracefs
	case TracefsUnsupported:
		f.OK, f.Detail, f.Remedy = No, unbuiltTracefs, otherMode
	}
	return f
}
