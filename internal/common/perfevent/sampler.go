package perfevent

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/diagnose"
)

// Rate is how often samples are taken: one of the two.
type Rate struct {
	Hertz  uint64 // a second and CPU
	Period uint64 // one in so many events; nanoseconds for clocks
}

// Sampler runs a program on samples of CPUs. It is not safe for concurrent use.
type Sampler struct {
	attr      unix.PerfEventAttr
	event     Event
	prog      *ebpf.Program
	cpus      []int // nil: all that are online
	samplings map[int]*sampling
	checked   time.Time
	sampled   time.Duration // on CPUs that are no longer sampled
	due       uint64        // likewise; see Due
	throttled uint64
	noRing    bool // rings are not permitted
	failed    map[int]error
}

// sampling is the event of one CPU.
type sampling struct {
	counting
	link    link.Link // nil if the program is attached by ioctl
	ring    *ring     // for records of throttling; may be nil
	enabled time.Duration
}

// NewSampler opens an event on each CPU, or on those in cpus if that is not nil, attaches
// prog to all of them, and only then starts them. Nothing of it remains after an error.
func NewSampler(prog *ebpf.Program, event Event, rate Rate, cpus []int) (*Sampler, error) {
	s := &Sampler{event: event, prog: prog, cpus: cpus, samplings: map[int]*sampling{}, failed: map[int]error{}}
	s.setAttr(rate)
	online, err := s.wanted()
	if err != nil {
		return nil, err
	}
	for _, cpu := range online {
		if err := s.open(cpu); err != nil {
			s.Close()
			return nil, fmt.Errorf("on CPU %d: %w", cpu, err)
		}
	}
	for cpu, one := range s.samplings {
		if err := one.start(); err != nil {
			s.Close()
			return nil, fmt.Errorf("start to sample CPU %d: %w", cpu, err)
		}
	}
	s.checked = time.Now()
	return s, nil
}

func (s *Sampler) setAttr(rate Rate) {
	s.attr = unix.PerfEventAttr{
		Type:   s.event.Type,
		Config: s.event.Config,
		Sample: rate.Period,
		// Only so that records of throttling can be parsed as those of the sideband.
		Sample_type: sampleType,
		Bits:        unix.PerfBitDisabled | unix.PerfBitSampleIDAll | unix.PerfBitUseClockID,
		Read_format: countingFormat,
		Clockid:     unix.CLOCK_MONOTONIC,
	}
	s.attr.Size = uint32(unsafe.Sizeof(s.attr))
	if rate.Hertz > 0 {
		s.attr.Sample = rate.Hertz
		s.attr.Bits |= unix.PerfBitFreq
	}
}

// wanted lists the CPUs to sample that are online.
func (s *Sampler) wanted() ([]int, error) {
	online, err := onlineCPUs()
	if err != nil {
		return nil, err
	}
	if s.cpus != nil {
		online = slices.DeleteFunc(online, func(cpu int) bool { return !slices.Contains(s.cpus, cpu) })
	}
	return online, nil
}

// open opens a CPU's event and attaches the program.
func (s *Sampler) open(cpu int) error {
	fd, err := s.openEvent(cpu)
	if err != nil {
		return err
	}
	one := &sampling{counting: counting{fd: fd}}
	if !s.noRing {
		if one.ring, err = newRing(fd, 1); err != nil {
			s.noRing = true // kernel.perf_event_mlock_kb: it goes without
		}
	}
	if one.link, err = attach(fd, s.prog); err != nil {
		one.close()
		return diagnose.Explain("attach the program to the perf event "+s.event.Name, diagnose.PerfEvent, err)
	}
	s.samplings[cpu] = one
	return nil
}

func (s *Sampler) openEvent(cpu int) (fd int, err error) {
	fd, err = unix.PerfEventOpen(&s.attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	return fd, diagnose.Explain("open the perf event "+s.event.Name, diagnose.PerfEvent, err)
}

// TryEvent reports whether a CPU can be sampled by an event, by opening it.
func TryEvent(event Event, rate Rate) error {
	s := Sampler{event: event}
	s.setAttr(rate)
	online, err := s.wanted()
	if err != nil {
		return err
	}
	fd, err := s.openEvent(online[0])
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// attach attaches by a link, from Linux 5.15 on (b89fbfbb854c), else by ioctl, where the
// event itself holds the program.
func attach(fd int, prog *ebpf.Program) (link.Link, error) {
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: fd, Program: prog, Attach: ebpf.AttachPerfEvent})
	if err == nil {
		return l, nil
	}
	if ioctlErr := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, prog.FD()); ioctlErr != nil {
		return nil, errors.Join(ioctlErr, err)
	}
	return nil, nil
}

func (one *sampling) start() error {
	err := unix.IoctlSetInt(one.fd, unix.PERF_EVENT_IOC_ENABLE, 0)
	one.since = time.Now()
	return err
}

func (one *sampling) close() {
	if one.link != nil {
		_ = one.link.Close()
	}
	if one.ring != nil {
		unix.Munmap(one.ring.mem)
	}
	unix.Close(one.fd)
}

// Refresh takes in CPUs that came online, at most once a second. What is missing, or can't
// be sampled any more, is told by an error, once; the others go on.
func (s *Sampler) Refresh() error {
	if time.Since(s.checked) < time.Second {
		return nil
	}
	s.checked = time.Now()
	online, err := s.wanted()
	if err != nil {
		return err
	}
	var errs []error
	for cpu, one := range s.samplings {
		switch alive := one.alive(); {
		case !slices.Contains(online, cpu):
			errs = append(errs, fmt.Errorf("CPU %d went offline: no samples are taken of it until a second after it is back", cpu))
		case !alive:
			errs = append(errs, fmt.Errorf("CPU %d was offline for a moment: no samples were taken of it for up to %v", cpu, time.Since(one.since).Round(time.Millisecond)))
		default:
			continue
		}
		s.end(cpu)
	}
	for _, cpu := range online {
		if s.samplings[cpu] != nil || s.failed[cpu] != nil {
			continue
		}
		err := s.open(cpu)
		if err == nil {
			err = s.samplings[cpu].start()
		}
		if errors.Is(err, unix.ENODEV) {
			continue // it went off just now
		}
		if err != nil {
			s.failed[cpu] = err
			errs = append(errs, fmt.Errorf("CPU %d came online, and can't be sampled: %w", cpu, err))
		}
	}
	return errors.Join(errs...)
}

// end ends the sampling of a CPU.
func (s *Sampler) end(cpu int) {
	one := s.samplings[cpu]
	delete(s.samplings, cpu)
	s.readRing(one)
	if now, err := one.time(); err == nil {
		one.enabled = now
	}
	s.sampled += one.enabled
	s.due += s.dueOf(one)
	one.close()
}

func (s *Sampler) readRing(one *sampling) {
	if one.ring == nil {
		return
	}
	// Only the count matters; records that can't be understood are counted by nothing.
	_ = one.ring.read(func(r *Record) error {
		if r.Kind == Throttle {
			s.throttled++
		}
		return nil
	})
}

// CPUs is how many CPUs are sampled now.
func (s *Sampler) CPUs() int { return len(s.samplings) }

// Throttled is how often the kernel has held back the sampling of a CPU so far, as it took
// too much of its time, or there were more samples than kernel.perf_event_max_sample_rate.
func (s *Sampler) Throttled() uint64 {
	for _, one := range s.samplings {
		s.readRing(one)
	}
	return s.throttled
}

// Sampled is for how long CPUs were sampled, all added up. For a clock, this divided by the
// period is how many samples there should be.
func (s *Sampler) Sampled() time.Duration {
	sum := s.sampled
	for _, one := range s.samplings {
		if now, err := one.time(); err == nil {
			one.enabled = now
		}
		sum += one.enabled
	}
	return sum
}

// Due is how many samples there should be by the events' own counts, if one is taken each
// so many events; 0 if not. The kernel runs no program, and counts that nowhere, where an
// event comes while a BPF system call is at work on its CPU, which a preemptible kernel may
// have interrupted (bpf_prog_active). For the clocks this can't be told: their samples
// come late where interrupts are off, and then one stands for several.
func (s *Sampler) Due() uint64 {
	sum := s.due
	for _, one := range s.samplings {
		if _, err := one.time(); err == nil {
			sum += s.dueOf(one)
		}
	}
	return sum
}

func (s *Sampler) dueOf(one *sampling) uint64 {
	if s.event.Clock() || s.attr.Bits&unix.PerfBitFreq != 0 {
		return 0
	}
	return one.counted / s.attr.Sample
}

// Close ends the sampling: when it returns, the program runs no more. What the Sampler
// counted stays there to be asked for.
func (s *Sampler) Close() error {
	for cpu := range s.samplings {
		s.end(cpu)
	}
	return nil
}

// Try reports whether prog may be attached to a perf event at all, by doing so.
func Try(prog *ebpf.Program) error {
	s := Sampler{event: CPUClock, prog: prog, noRing: true, samplings: map[int]*sampling{}}
	s.attr = unix.PerfEventAttr{Type: CPUClock.Type, Config: CPUClock.Config, Sample: 1e9, Bits: unix.PerfBitDisabled}
	s.attr.Size = uint32(unsafe.Sizeof(s.attr))
	online, err := s.wanted()
	if err != nil {
		return err
	}
	if err := s.open(online[0]); err != nil {
		return err
	}
	return s.Close()
}

// MaxHertz is how many samples a second and CPU the kernel takes at most:
// kernel.perf_event_max_sample_rate, which it lowers when samples take too much time.
func MaxHertz() (uint64, error) { return sysctl("perf_event_max_sample_rate") }

// MaxStack is how many frames the kernel's own stacks have at most:
// kernel.perf_event_max_stack.
func MaxStack() (uint64, error) { return sysctl("perf_event_max_stack") }

func sysctl(name string) (uint64, error) {
	text, err := os.ReadFile("/proc/sys/kernel/" + name)
	if err != nil {
		return 0, fmt.Errorf("read the sysctl kernel.%s: %w", name, err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the sysctl kernel.%s: %w", name, err)
	}
	return n, nil
}

// Online lists the CPUs that are online.
func Online() ([]int, error) { return onlineCPUs() }
