package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A machine says how to emulate an architecture.
type machine struct {
	Program string // QEMU's
	Package string // Debian's, that has the program
	Console string // the guest's first serial port
	TCG     []string
	KVM     []string // nil where there is none to try
}

// machines has the machine of each GOARCH. A guest's CPUs take turns on one host
// thread: with a thread each, QEMU 7.2 now and then goes on executing an int3
// that another CPU has taken back. The guest's CPU then stands at the end of its
// system call for ever (5.10: syscall_exit_to_user_mode), since tracing patches
// the kernel's code all the time. It is no slower, as two guests run at a time.
var machines = map[string]machine{
	"amd64": {
		Program: "qemu-system-x86_64",
		Package: "qemu-system-x86",
		Console: "ttyS0",
		TCG:     []string{"-accel", "tcg,thread=single", "-cpu", "max"},
		KVM:     []string{"-accel", "kvm", "-cpu", "host"},
	},
	"arm64": {
		Program: "qemu-system-aarch64",
		Package: "qemu-system-arm",
		Console: "ttyAMA0",
		// Signing pointers as the architecture says is slow to emulate.
		TCG: []string{"-M", "virt", "-accel", "tcg,thread=single", "-cpu", "max,pauth-impdef=on"},
	},
}

// Time limits from the start of QEMU to init's first line. An emulated boot
// takes 5 to 20 seconds on an idle host.
const (
	tcgBootLimit = 120 * time.Second
	kvmBootLimit = 15 * time.Second
)

// A guestBoot is one run of QEMU.
type guestBoot struct {
	Machine   machine
	Accel     []string
	Vmlinuz   string
	Initrd    string
	BootLimit time.Duration // until init's first line
	Limit     time.Duration // until power-off
	Log       io.Writer     // gets the console as it is
	Lines     func(string)  // gets the console line by line, if not nil
}

// run boots the guest and returns what it said when it has powered off. The
// error tells why the guest, and not one of its tests, failed.
func (b guestBoot) run(ctx context.Context) (*console, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, b.Limit, fmt.Errorf("no verdict within %v", b.Limit))
	defer cancel()
	ctx, cancelBoot := context.WithCancelCause(ctx)
	defer cancelBoot(nil)
	bootTimer := time.AfterFunc(b.BootLimit, func() {
		cancelBoot(fmt.Errorf("init did not start within %v", b.BootLimit))
	})
	defer bootTimer.Stop()

	args := append([]string{
		"-m", "2048", "-smp", "2", "-no-reboot",
		"-display", "none", "-monitor", "none", "-serial", "stdio", "-nic", "none",
		// A disk that keeps nothing and takes no time, for tests that want one of
		// virtio's. They know it by its serial number.
		"-blockdev", "driver=null-co,node-name=disk,size=67108864,read-zeroes=on",
		"-device", "virtio-blk-pci,drive=disk,serial=gobcc-test",
		"-kernel", b.Vmlinuz, "-initrd", b.Initrd,
		// panic=-1 reboots at once, and then -no-reboot ends QEMU. Messages
		// are told from test output by their time.
		"-append", "console=" + b.Machine.Console + " panic=-1 quiet printk.time=1",
	}, b.Accel...)
	cmd := exec.CommandContext(ctx, b.Machine.Program, args...)
	// A runner that is killed must not leave an emulator behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start QEMU: %w", err)
	}
	c := &console{}
	lines := bufio.NewReader(io.TeeReader(out, b.Log))
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			c.line(line)
			if b.Lines != nil {
				b.Lines(strings.TrimRight(line, "\r\n"))
			}
			if c.started() {
				bootTimer.Stop()
			}
		}
		if err != nil {
			break // QEMU has closed it: it is gone, or going
		}
	}
	c.flush()
	err = cmd.Wait()
	switch {
	case c.Done:
		return c, nil
	case ctx.Err() != nil:
		return c, context.Cause(ctx)
	case c.Panic != "":
		return c, errors.New(c.Panic)
	case err != nil:
		return c, fmt.Errorf("QEMU: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return c, errors.New("the guest powered off without a verdict")
}

// runTwice is run, and once more if the guest died before its init started:
// some kernels panic early in an emulated boot now and then, with or without
// our tests. What happens after init's start is never tried again. again is
// called before the second boot, with what was wrong with the first.
func (b guestBoot) runTwice(ctx context.Context, again func(error)) (*console, error) {
	c, err := b.run(ctx)
	if err == nil || c == nil || c.started() || ctx.Err() != nil {
		return c, err
	}
	again(err)
	return b.run(ctx)
}

// An accelerator finds out, once, whether this machine can run guests by KVM.
// That /dev/kvm can be opened is no proof: it may hang or fail from there on.
type accelerator struct {
	ask  string // auto, kvm or tcg
	log  io.Writer
	once sync.Once
	kvm  bool
}

// choose returns QEMU's options for m and the limit for its boot. probe boots
// the guest with the options given and an init that powers off.
func (a *accelerator) choose(m machine, probe func(accel []string, limit time.Duration) error) ([]string, time.Duration) {
	if a.ask == "tcg" || m.KVM == nil {
		return m.TCG, tcgBootLimit
	}
	if a.ask == "kvm" {
		return m.KVM, tcgBootLimit
	}
	a.once.Do(func() {
		f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
		if err != nil {
			return
		}
		f.Close()
		if err := probe(m.KVM, kvmBootLimit); err != nil {
			fmt.Fprintf(a.log, "kernels: KVM is there but does not work, so guests are emulated (%v)\n", firstLine(err))
			return
		}
		a.kvm = true
	})
	if a.kvm {
		return m.KVM, tcgBootLimit
	}
	return m.TCG, tcgBootLimit
}

// emulates reports whether guests are emulated, once one was run.
func (a *accelerator) emulates() bool { return a.ask != "kvm" && !a.kvm }

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
