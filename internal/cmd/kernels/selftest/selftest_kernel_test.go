package selftest

//kernel:modules overlay null_blk

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// guest skips a test that is about the runner's guest where there is none.
func guest(t *testing.T) {
	t.Helper()
	if os.Getenv("GOBCC_GUEST") == "" {
		t.Skip("SKIPPED: not in a guest of the kernel runner: use make test-kernels")
	}
}

func TestKernelBoots(t *testing.T) {
	guest(t)
	t.Run("mounts", func(t *testing.T) {
		for dir, magic := range map[string]int64{
			"/proc":               unix.PROC_SUPER_MAGIC,
			"/sys":                unix.SYSFS_MAGIC,
			"/dev":                unix.TMPFS_MAGIC,
			"/dev/pts":            unix.DEVPTS_SUPER_MAGIC,
			"/sys/kernel/tracing": unix.TRACEFS_MAGIC,
			"/sys/fs/bpf":         unix.BPF_FS_MAGIC,
			"/sys/fs/cgroup":      unix.CGROUP2_SUPER_MAGIC,
			"/tmp":                unix.TMPFS_MAGIC,
			"/run":                unix.TMPFS_MAGIC,
		} {
			var fs unix.Statfs_t
			if err := unix.Statfs(dir, &fs); err != nil {
				t.Errorf("statfs %s: %v", dir, err)
			} else if fs.Type != magic {
				t.Errorf("%s is a file system of type %#x, want %#x", dir, fs.Type, magic)
			}
		}
	})
	t.Run("btf", func(t *testing.T) {
		if _, err := btf.LoadKernelSpec(); err != nil {
			t.Error(err)
		}
	})
	t.Run("lo", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	})
	t.Run("files", func(t *testing.T) {
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		if limit.Cur != 65536 || limit.Max != 65536 {
			t.Errorf("limit of open files is %d, at most %d, want 65536", limit.Cur, limit.Max)
		}
	})
	t.Run("modules", func(t *testing.T) {
		loaded := os.Getenv("GOBCC_MODULES")
		if loaded == "" {
			t.Skip("SKIPPED: this kernel came without modules")
		}
		for _, name := range []string{"overlay", "null_blk"} {
			if _, err := os.Stat("/sys/module/" + name); err != nil {
				t.Errorf("module not loaded (loaded are: %s): %v", loaded, err)
			}
		}
	})
	t.Run("testdata", func(t *testing.T) {
		text, err := os.ReadFile("testdata/hello")
		if err != nil {
			t.Fatal(err)
		}
		if string(text) != "hello\n" {
			t.Errorf("testdata/hello is %q", text)
		}
	})
}

// calls is how often the traced system call is made: a prime number, which a
// program that runs twice a call can't hit by chance.
const calls = 23

// TestKernelModes counts getpgid calls by a program of each attach mode. It is
// not getppid's: a system call without arguments is an alias of another
// function, and has no BTF for fentry to go by.
func TestKernelModes(t *testing.T) {
	guest(t)
	for _, mode := range []struct {
		name   string
		spec   func(symbol string) *ebpf.ProgramSpec
		attach func(prog *ebpf.Program, symbol string) (link.Link, error)
	}{
		{"fentry", func(symbol string) *ebpf.ProgramSpec {
			return &ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTo: symbol}
		}, attachTracing},
		{"kprobe", func(string) *ebpf.ProgramSpec {
			return &ebpf.ProgramSpec{Type: ebpf.Kprobe}
		}, func(prog *ebpf.Program, symbol string) (link.Link, error) {
			return link.Kprobe(symbol, prog, nil)
		}},
		{"tracepoint", func(string) *ebpf.ProgramSpec {
			return &ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "sys_enter"}
		}, attachTracing},
	} {
		t.Run(mode.name, func(t *testing.T) {
			if err := rlimit.RemoveMemlock(); err != nil {
				t.Fatal(err)
			}
			counter, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer counter.Close()
			spec := mode.spec(getpgidSymbol)
			spec.License = "GPL"
			spec.Instructions = countCalls(counter, mode.name == "tracepoint")
			prog, err := ebpf.NewProgram(spec)
			skipUnsupported(t, mode.name, err)
			if err != nil {
				t.Fatalf("load: %+v", err)
			}
			defer prog.Close()
			attached, err := mode.attach(prog, getpgidSymbol)
			skipUnsupported(t, mode.name, err)
			if err != nil {
				t.Fatalf("attach: %v", err)
			}
			defer attached.Close()

			for range calls {
				getpgid(t)
			}
			if got := count(t, counter); got != calls {
				t.Errorf("counted %d calls, want %d", got, calls)
			}
			if err := attached.Close(); err != nil {
				t.Fatal(err)
			}
			getpgid(t)
			if got := count(t, counter); got != calls {
				t.Errorf("counted %d calls after the program was detached, want %d", got, calls)
			}
		})
	}
}

func getpgid(t *testing.T) {
	t.Helper()
	if _, err := unix.Getpgid(0); err != nil {
		t.Fatal(err)
	}
}

func attachTracing(prog *ebpf.Program, _ string) (link.Link, error) {
	return link.AttachTracing(link.TracingOptions{Program: prog})
}

// skipUnsupported skips where the kernel says that it lacks this attach mode.
// The runner knows on which kernels that may be so.
func skipUnsupported(t *testing.T, mode string, err error) {
	t.Helper()
	// The kernel's own ENOTSUPP, which is not to be seen outside, and is.
	const enotsupp = unix.Errno(524)
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, enotsupp) {
		t.Skipf("SKIPPED: this kernel has no %s: %v", mode, strings.ReplaceAll(err.Error(), "\n", " "))
	}
}

// countCalls is a program that counts its runs in this process, or, for the raw
// tracepoint of all system calls, those for getpgid.
func countCalls(counter *ebpf.Map, rawTracepoint bool) asm.Instructions {
	var insns asm.Instructions
	if rawTracepoint {
		insns = append(insns,
			asm.LoadMem(asm.R1, asm.R1, 8, asm.DWord), // the second argument is the call's number
			asm.JNE.Imm(asm.R1, unix.SYS_GETPGID, "exit"),
		)
	}
	return append(insns,
		asm.FnGetCurrentPidTgid.Call(),
		asm.RSh.Imm(asm.R0, 32),
		asm.JNE.Imm(asm.R0, int32(os.Getpid()), "exit"),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, counter.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "exit"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("exit"),
		asm.Return(),
	)
}

func count(t *testing.T, counter *ebpf.Map) uint64 {
	t.Helper()
	var n uint64
	if err := counter.Lookup(uint32(0), &n); err != nil {
		t.Fatal(err)
	}
	return n
}
