package diagnose

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// State is the answer to a yes-or-no question that may have no answer.
type State int

// The states; the zero value is Unknown.
const (
	Unknown State = iota
	No
	Yes
)

func (s State) String() string {
	switch s {
	case Yes:
		return "yes"
	case No:
		return "no"
	}
	return "unknown"
}

// Lockdown is the mode in /sys/kernel/security/lockdown.
type Lockdown string

// The modes of lockdown. It is LockdownUnknown when securityfs is not mounted
// or the kernel was built without lockdown.
const (
	LockdownUnknown Lockdown = ""
	LockdownNone    Lockdown = "none"
	Integrity       Lockdown = "integrity"
	Confidentiality Lockdown = "confidentiality"
)

// Tracefs tells whether tracefs can be used, at /sys/kernel/tracing or below
// debugfs.
type Tracefs int

// The states of tracefs; the zero value is TracefsUnknown.
const (
	TracefsUnknown     Tracefs = iota
	TracefsReadable            // mounted, and open to this process
	TracefsUnreadable          // mounted, but not open to this process
	TracefsUnmounted           // known to the kernel, but not mounted there
	TracefsUnsupported         // not known to the kernel
)

// Capability is a capability's bit number.
type Capability uint

// The capabilities that tracing may take.
const (
	DacReadSearch Capability = unix.CAP_DAC_READ_SEARCH
	NetAdmin      Capability = unix.CAP_NET_ADMIN
	SysPtrace     Capability = unix.CAP_SYS_PTRACE
	SysAdmin      Capability = unix.CAP_SYS_ADMIN
	SysResource   Capability = unix.CAP_SYS_RESOURCE
	Syslog        Capability = unix.CAP_SYSLOG
	Perfmon       Capability = unix.CAP_PERFMON
	Bpf           Capability = unix.CAP_BPF
)

func (c Capability) String() string {
	switch c {
	case DacReadSearch:
		return "CAP_DAC_READ_SEARCH"
	case NetAdmin:
		return "CAP_NET_ADMIN"
	case SysPtrace:
		return "CAP_SYS_PTRACE"
	case SysAdmin:
		return "CAP_SYS_ADMIN"
	case SysResource:
		return "CAP_SYS_RESOURCE"
	case Syslog:
		return "CAP_SYSLOG"
	case Perfmon:
		return "CAP_PERFMON"
	case Bpf:
		return "CAP_BPF"
	}
	return "capability " + strconv.Itoa(int(c))
}

// Caps is a set of capabilities, as the mask in /proc/PID/status.
type Caps uint64

// Has reports whether the set is enough where c is asked for: CAP_SYS_ADMIN
// includes the three that were split off it.
func (s Caps) Has(c Capability) bool {
	if s&(1<<c) != 0 {
		return true
	}
	split := c == Bpf || c == Perfmon || c == Syslog
	return split && s&(1<<SysAdmin) != 0
}

// Unlimited is a limit that is none.
const Unlimited = math.MaxUint64

// UnknownSysctl stands for a sysctl that could not be read.
const UnknownSysctl = math.MinInt

// System is what decides on a machine whether a tracer may run. A fact that
// could not be read is unknown, never assumed.
type System struct {
	Release string // of the kernel, "6.12.0-1-amd64"
	Program string // path of the running executable; "" if unknown

	UID           int  // effective user id
	Caps          Caps // effective capabilities
	CapsKnown     bool
	UserNamespace bool   // in a user namespace other than the initial one
	Seccomp       bool   // a seccomp filter is on
	Memlock       uint64 // soft limit on locked memory in bytes

	Lockdown                Lockdown
	SecurityModules         []string // active ones; nil if unknown
	UnprivilegedBPFDisabled int      // or UnknownSysctl
	PerfEventParanoid       int      // or UnknownSysctl

	BTF     State // the kernel describes its types in /sys/kernel/btf
	Kprobes State // the perf PMU for kprobes is there
	Tracefs Tracefs
}

// ReadSystem reads the facts about this machine and process from /proc and /sys
// under root, which is "/" except in tests.
func ReadSystem(root string) *System {
	s := readSystem(os.DirFS(root))
	if program, err := os.Executable(); err == nil {
		s.Program = program
	}
	return s
}

func readSystem(root fs.FS) *System {
	s := &System{Memlock: Unlimited}
	s.Release = readLine(root, "proc/sys/kernel/osrelease")
	s.UnprivilegedBPFDisabled = readSysctl(root, "proc/sys/kernel/unprivileged_bpf_disabled")
	s.PerfEventParanoid = readSysctl(root, "proc/sys/kernel/perf_event_paranoid")
	s.Lockdown = parseLockdown(readLine(root, "sys/kernel/security/lockdown"))
	if modules := readLine(root, "sys/kernel/security/lsm"); modules != "" {
		s.SecurityModules = strings.Split(modules, ",")
	}
	read(root, "proc/self/status", s.parseStatus)
	read(root, "proc/self/uid_map", s.parseUIDMap)
	read(root, "proc/self/limits", s.parseLimits)
	s.BTF = there(root, "sys/kernel/btf", "vmlinux")
	if s.BTF == Unknown && there(root, "sys/kernel", "btf") == No {
		s.BTF = No // the directory comes with the first BTF in it
	}
	s.Kprobes = there(root, "sys/bus/event_source/devices", "kprobe")
	s.Tracefs = readTracefs(root)
	return s
}

// there reports whether dir has the entry, or Unknown if dir itself cannot be
// read, as where /sys is not mounted.
func there(root fs.FS, dir, name string) State {
	entries, err := fs.ReadDir(root, dir)
	if err != nil || len(entries) == 0 {
		return Unknown
	}
	for _, e := range entries {
		if e.Name() == name {
			return Yes
		}
	}
	return No
}

func readTracefs(root fs.FS) Tracefs {
	f, err := root.Open("sys/kernel/tracing/events")
	// Where debugfs is mounted it mounts tracefs by itself, at its old place.
	if err != nil {
		if old, oldErr := root.Open("sys/kernel/debug/tracing/events"); oldErr == nil {
			f, err = old, nil
		}
	}
	switch {
	case err == nil:
		f.Close()
		return TracefsReadable
	case errors.Is(err, fs.ErrPermission):
		// A process that may not search the mount point gets EACCES.
		return TracefsUnreadable
	}
	supported := Unknown
	read(root, "proc/filesystems", func(r io.Reader) error {
		supported = No
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			if fields := strings.Fields(lines.Text()); len(fields) > 0 && fields[len(fields)-1] == "tracefs" {
				supported = Yes
			}
		}
		return lines.Err()
	})
	switch supported {
	case Yes:
		return TracefsUnmounted
	case No:
		return TracefsUnsupported
	}
	return TracefsUnknown
}

// read parses a file. A fact stays unknown if its file is missing or not in the
// known format, so there is no error to return.
func read(root fs.FS, name string, parse func(io.Reader) error) {
	f, err := root.Open(name)
	if err != nil {
		return
	}
	defer f.Close()
	_ = parse(f)
}

func readLine(root fs.FS, name string) string {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(line)
}

func readSysctl(root fs.FS, name string) int {
	v, err := strconv.Atoi(readLine(root, name))
	if err != nil {
		return UnknownSysctl
	}
	return v
}

// parseLockdown finds the mode in brackets: "none [integrity] confidentiality".
func parseLockdown(line string) Lockdown {
	for _, word := range strings.Fields(line) {
		if mode, found := strings.CutPrefix(word, "["); found {
			return Lockdown(strings.TrimSuffix(mode, "]"))
		}
	}
	return LockdownUnknown
}

// parseStatus reads /proc/PID/status.
func (s *System) parseStatus(r io.Reader) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Uid": // real, effective, saved, file system
			fields := strings.Fields(value)
			if len(fields) < 2 {
				return fmt.Errorf("uid line %q has no effective uid", value)
			}
			uid, err := strconv.Atoi(fields[1])
			if err != nil {
				return err
			}
			s.UID = uid
		case "CapEff":
			mask, err := strconv.ParseUint(value, 16, 64)
			if err != nil {
				return err
			}
			s.Caps, s.CapsKnown = Caps(mask), true
		case "Seccomp":
			s.Seccomp = value == "2" // 1 is strict mode, which could not run us
		}
	}
	return lines.Err()
}

// parseUIDMap reads /proc/PID/uid_map: the initial user namespace maps every id
// to itself.
func (s *System) parseUIDMap(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.UserNamespace = strings.Join(strings.Fields(string(text)), " ") != "0 0 4294967295"
	return nil
}

// parseLimits reads /proc/PID/limits.
func (s *System) parseLimits(r io.Reader) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		limits, found := strings.CutPrefix(lines.Text(), "Max locked memory")
		if !found {
			continue
		}
		soft, _, _ := strings.Cut(strings.TrimSpace(limits), " ")
		if soft == "unlimited" {
			s.Memlock = Unlimited
			return nil
		}
		n, err := strconv.ParseUint(soft, 10, 64)
		if err != nil {
			return err
		}
		s.Memlock = n
	}
	return lines.Err()
}

// olderThan reports whether the kernel's release is known and before
// major.minor.
func (s *System) olderThan(major, minor int) bool {
	var gotMajor, gotMinor int
	if n, err := fmt.Sscanf(s.Release, "%d.%d", &gotMajor, &gotMinor); n != 2 || err != nil {
		return false
	}
	return gotMajor < major || gotMajor == major && gotMinor < minor
}
