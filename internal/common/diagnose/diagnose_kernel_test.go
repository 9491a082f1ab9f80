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

// childEnv makes this test binary try one load, print what Explain makes of the
// answer ("ok" if there was none), and exit.
const childEnv = "GOBCC_DIAGNOSE_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := tryRawTracepoint(); err != nil {
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

// TestKernelDiagnose asks the real kernel, as several users.
func TestKernelDiagnose(t *testing.T) {
	if os.Getenv("GOBCC_KERNEL_TESTS") != "1" {
		t.Skip("SKIPPED: asks the real kernel as several users; run as root with GOBCC_KERNEL_TESTS=1")
	}
	if os.Geteuid() != 0 {
		t.Fatal("GOBCC_KERNEL_TESTS=1 needs root")
	}

	const nobody = 65534
	for _, c := range []struct {
		name string
		attr *syscall.SysProcAttr
		want string // the beginning of what is printed
	}{
		{"root", nil, "ok"},
		{
			"nobody", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}},
			"load raw tracepoint program: needs CAP_BPF and CAP_PERFMON [operation not permitted]; run as root, or once as root: setcap cap_bpf,cap_perfmon+ep ",
		},
		{
			"nobody with CAP_BPF", &syscall.SysProcAttr{
				Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, AmbientCaps: []uintptr{unix.CAP_BPF},
			},
			"load raw tracepoint program: needs CAP_PERFMON [operation not permitted]; run as root, or once as root: setcap cap_bpf,cap_perfmon+ep ",
		},
		{
			"nobody with CAP_BPF and CAP_PERFMON", &syscall.SysProcAttr{
				Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, AmbientCaps: []uintptr{unix.CAP_BPF, unix.CAP_PERFMON},
			},
			"ok",
		},
		{
			"root of a user namespace", &syscall.SysProcAttr{
				Cloneflags:  unix.CLONE_NEWUSER,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}},
			},
			"load raw tracepoint program: not permitted inside a user namespace, ",
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
			cmd.Env = []string{childEnv + "=1"}
			cmd.SysProcAttr = c.attr
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSuffix(string(out), "\n"); !strings.HasPrefix(got, c.want) || strings.Contains(got, "\n") {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
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
