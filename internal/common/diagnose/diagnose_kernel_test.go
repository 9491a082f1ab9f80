package diagnose

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// childEnv makes this test binary try one of attempts, print what Explain makes
// of the answer ("ok" if there was none), and exit.
const childEnv = "GOBCC_DIAGNOSE_CHILD"

var attempts = map[string]func() error{
	"raw tracepoint": tryRawTracepoint, "kprobe": tryKprobe, "tracepoint": tryTracepoint,
}

func TestMain(m *testing.M) {
	if attempt := attempts[os.Getenv(childEnv)]; attempt != nil {
		if err := attempt(); err != nil {
			fmt.Println(err)
		} else {
			fmt.Println("ok")
		}
		return
	}
	os.Exit(m.Run())
}

func returnZero() asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}
}

func tryRawTracepoint() error {
	const tried = "load raw tracepoint program"
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.RawTracepoint, Instructions: returnZero(), License: "Dual BSD/GPL",
	})
	if err != nil {
		return Explain(tried, RawTracepoint, err)
	}
	defer program.Close()
	attached, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sched_process_exit", Program: program})
	if err != nil {
		return Explain(tried, RawTracepoint, err)
	}
	return attached.Close()
}

func tryKprobe() error {
	const tried = "attach kprobe"
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Kprobe, Instructions: returnZero(), License: "Dual BSD/GPL",
	})
	if err != nil {
		return Explain(tried, Kprobe, err)
	}
	defer program.Close()
	attached, err := link.Kprobe("do_sys_openat2", program, nil)
	if err != nil {
		return Explain(tried, Kprobe, err)
	}
	return attached.Close()
}

func tryTracepoint() error {
	const tried = "attach tracepoint"
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.TracePoint, Instructions: returnZero(), License: "Dual BSD/GPL",
	})
	if err != nil {
		return Explain(tried, Tracepoint, err)
	}
	defer program.Close()
	attached, err := link.Tracepoint("sched", "sched_process_exit", program, nil)
	if err != nil {
		return Explain(tried, Tracepoint, err)
	}
	return attached.Close()
}

// TestKernelDiagnose asks the real kernel, as several users.
func TestKernelDiagnose(t *testing.T) {
	if os.Getenv("GOBCC_KERNEL_TESTS") != "1" {
		t.Skip("SKIPPED: asks the real kernel as several users; run as root with GOBCC_KERNEL_TESTS=1")
	}
	if os.Geteuid() != 0 {
		t.Fatal("GOBCC_KERNEL_TESTS=1 needs root")
	}

	const nobody = 65534
	as := func(caps ...uintptr) *syscall.SysProcAttr {
		return &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, AmbientCaps: caps,
		}
	}
	remedy := " [operation not permitted]; run as root, or once as root: setcap cap_bpf,cap_perfmon+ep "
	for _, c := range []struct {
		name    string
		attempt string
		attr    *syscall.SysProcAttr
		want    string // the beginning of what is printed
	}{
		{"root", "raw tracepoint", nil, "ok"},
		{"nobody", "raw tracepoint", as(), "load raw tracepoint program: needs CAP_BPF and CAP_PERFMON" + remedy},
		{"nobody with CAP_BPF", "raw tracepoint", as(unix.CAP_BPF), "load raw tracepoint program: needs CAP_PERFMON" + remedy},
		{"nobody with CAP_BPF and CAP_PERFMON", "raw tracepoint", as(unix.CAP_BPF, unix.CAP_PERFMON), "ok"},
		{
			"root of a user namespace", "raw tracepoint", &syscall.SysProcAttr{
				Cloneflags:  unix.CLONE_NEWUSER,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}},
			},
			"load raw tracepoint program: not permitted inside a user namespace, ",
		},
		{
			"nobody with CAP_BPF and CAP_PERFMON, kprobe", "kprobe", as(unix.CAP_BPF, unix.CAP_PERFMON),
			wantPerf("attach kprobe: ", Kprobe),
		},
		{
			"nobody with CAP_BPF and CAP_PERFMON, tracepoint", "tracepoint", as(unix.CAP_BPF, unix.CAP_PERFMON),
			wantPerf("attach tracepoint: ", Tracepoint),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			// The directory of the binary may be closed to others, so the child
			// executes it through an open file.
			self, err := os.Open("/proc/self/exe")
			if err != nil {
				t.Fatal(err)
			}
			defer self.Close()
			cmd := exec.Command("/proc/self/fd/3")
			cmd.ExtraFiles = []*os.File{self}
			cmd.Env = []string{childEnv + "=" + c.attempt}
			cmd.SysProcAttr = c.attr
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			got := strings.TrimSuffix(string(out), "\n")
			if !strings.HasPrefix(got, c.want) || strings.Contains(got, "\n") {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			t.Log(got)
		})
	}

	t.Run("fentry", func(t *testing.T) {
		program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTo: "do_sys_openat2",
			Instructions: returnZero(), License: "Dual BSD/GPL",
		})
		if err == nil {
			defer program.Close()
			var attached link.Link
			if attached, err = link.AttachTracing(link.TracingOptions{Program: program}); err == nil {
				attached.Close()
			}
		}
		wantRefusal(t, Fentry, err)
	})
	t.Run("kprobe", func(t *testing.T) {
		program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.Kprobe, Instructions: returnZero(), License: "Dual BSD/GPL",
		})
		if err == nil {
			defer program.Close()
			var attached link.Link
			if attached, err = link.Kprobe("do_sys_openat2", program, nil); err == nil {
				attached.Close()
			}
		}
		wantRefusal(t, Kprobe, err)
		if built := ReadSystem("/").Kprobes; (built == Yes) != (err == nil) {
			t.Errorf("kprobes there: %v; attaching one: %v", built, err)
		}
	})
	t.Run("missing raw tracepoint", func(t *testing.T) {
		program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.RawTracepoint, Instructions: returnZero(), License: "Dual BSD/GPL",
		})
		if err != nil {
			t.Fatal(err)
		}
		defer program.Close()
		if _, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: "no_such_tracepoint", Program: program}); err == nil {
			t.Fatal("a tracepoint that does not exist could be attached to")
		}
		wantRefusal(t, RawTracepoint, err)
	})
	t.Run("verifier", func(t *testing.T) {
		_, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.RawTracepoint, License: "Dual BSD/GPL",
			Instructions: asm.Instructions{asm.LoadMem(asm.R0, asm.R0, 0, asm.DWord), asm.Return()},
		})
		explained := Explain("load it", RawTracepoint, err)
		var refusal *Refusal
		if explained == nil || errors.As(explained, &refusal) || !strings.Contains(explained.Error(), "which is a bug") {
			t.Errorf("a program that reads an unset register: %v", explained)
		}
		t.Log(explained)
	})
}

// wantPerf is what a user with CAP_BPF and CAP_PERFMON is told on this kernel.
func wantPerf(tried string, kind Kind) string {
	s := ReadSystem("/")
	switch {
	case kind == Kprobe && s.Kprobes == No:
		return tried + noKprobes
	case kind == Tracepoint && s.Tracefs == TracefsUnmounted:
		return tried + noTracefs
	case kind == Tracepoint && s.PerfEventParanoid >= paranoidAny:
		return tried + fmt.Sprintf("needs CAP_DAC_READ_SEARCH and CAP_SYS_ADMIN, as kernel.perf_event_paranoid is %d", s.PerfEventParanoid)
	case kind == Tracepoint:
		return tried + "needs CAP_DAC_READ_SEARCH"
	case s.PerfEventParanoid >= paranoidAny:
		return tried + fmt.Sprintf("needs CAP_SYS_ADMIN, as kernel.perf_event_paranoid is %d", s.PerfEventParanoid)
	}
	return "ok"
}

// wantRefusal checks that an answer of this kernel, if it is an error at all,
// is explained in one line of ours.
func wantRefusal(t *testing.T, kind Kind, err error) {
	t.Helper()
	if err == nil {
		t.Log("this kernel allows it")
		return
	}
	explained := Explain("load it", kind, err)
	t.Logf("library: %v", err)
	t.Logf("ours:    %v", explained)
	var refusal *Refusal
	if !errors.As(explained, &refusal) || strings.Contains(explained.Error(), "MEMLOCK") || strings.Contains(explained.Error(), "\n") {
		t.Errorf("not explained: %v", explained)
	}
}
