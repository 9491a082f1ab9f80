package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/cli"
	"github.com/gobcc/gobcc/internal/common/filter"
	"github.com/gobcc/gobcc/internal/common/histogram"
	"github.com/gobcc/gobcc/internal/common/livetest"
	"github.com/gobcc/gobcc/internal/common/tooltest"
)

func TestMain(m *testing.M) { livetest.Main(m, main) }

// times is how often each thing is done: a number that no accident gives.
const times = 23

// object is what the tool writes with --json.
type object struct {
	Time       string
	Kind       string
	IntervalNS int64 `json:"interval_ns"`
	Disk       *string
	Op         string
	Flags      []string
	CgroupID   uint64 `json:"cgroup_id"`
	Comm       string
	Phase      string
	Unit       string
	Count      uint64
	Sum        uint64
	Min, Max   uint64
	P50, P90   uint64
	P99, P999  uint64
	Errors     uint64
	Buckets    []struct{ Le, Count uint64 }
	Error      string

	Lost         uint64
	PossiblyLost uint64 `json:"possibly_lost"`
	Causes       map[string]uint64
}

// histograms gives the histograms that a tool wrote, each of which must be in itself
// right, and the errors.
func histograms(t testing.TB, res livetest.Result) (all, failed []object) {
	t.Helper()
	for _, o := range livetest.Decode[object](t, res.Over(t, 0).Lines()) {
		switch o.Kind {
		case "histogram":
			sum := uint64(0)
			for _, b := range o.Buckets {
				sum += b.Count
			}
			order := []uint64{o.Min, o.P50, o.P90, o.P99, o.P999, o.Max}
			if sum != o.Count || o.Sum < o.Count*o.Min || o.Sum > o.Count*o.Max || !slices.IsSorted(order) || o.Unit != "ns" || o.IntervalNS <= 0 {
				t.Errorf("a histogram that is not right in itself: %+v", o)
			}
			all = append(all, o)
		case "error":
			failed = append(failed, o)
		case "lost": // the tool says so on standard error too
		default:
			t.Errorf("%+v", o)
		}
	}
	return all, failed
}

// counted adds up the histograms by what key makes of them.
func counted(all []object, key func(o object) string) map[string]uint64 {
	sums := map[string]uint64{}
	for _, o := range all {
		sums[key(o)] += o.Count
	}
	return sums
}

func diskAndOp(o object) string {
	if o.Disk == nil {
		return "none " + o.Op
	}
	return *o.Disk + " " + o.Op
}

// check compares counts.
func check(a *livetest.Attempt, what string, got, want map[string]uint64) {
	for key, n := range want {
		if got[key] != n {
			a.Errorf("%s: %d requests of %q, not %d", what, got[key], key, n)
		}
	}
	for key, n := range got {
		if _, ok := want[key]; !ok {
			a.Errorf("%s: %d requests of %q, and there were none", what, n, key)
		}
	}
}

// TestKernelModes has the tool in each mode: the hooks are the same in all.
func TestKernelModes(t *testing.T) {
	livetest.NeedOnce(t)
	for _, mode := range []string{"fentry", "kprobe", "tracepoint"} {
		tool := livetest.Start(t, "-j", "--split", "--by", "cgroup", "--attach", mode)
		tool.Ready()
		tool.Stop().Over(t, 0)
	}
}

// TestKernelBucket compares the kernel side's buckets with the Go side's.
func TestKernelBucket(t *testing.T) {
	livetest.Need(t)
	_ = rlimit.RemoveMemlock() // up to 5.10
	spec := tooltest.Object(t, loadBpf)
	coll, err := ebpf.NewCollection(&ebpf.CollectionSpec{
		Programs: map[string]*ebpf.ProgramSpec{"bucket_call": spec.Programs["bucket_call"]}, Types: spec.Types, ByteOrder: spec.ByteOrder,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer coll.Close()
	numbers := []uint64{0}
	for shift := range 64 {
		n := uint64(1) << shift
		numbers = append(numbers, n-1, n, n+1, n|n>>1, n|n>>4, ^uint64(0)>>shift)
	}
	r := rand.New(rand.NewPCG(5, 6))
	for range 2_000 {
		numbers = append(numbers, r.Uint64()>>r.UintN(64))
	}
	for _, n := range numbers {
		got, err := coll.Programs["bucket_call"].Run(&ebpf.RunOptions{Context: []uint64{n}})
		if err != nil {
			t.Fatal(err)
		}
		if want := uint32(histogram.BucketOf(n)); got != want {
			t.Errorf("%d is in bucket %d in the kernel, and %d in Go", n, got, want)
		}
	}
}

// TestKernelOperations counts operations of known sizes by disk and operation, on disks
// of several drivers.
func TestKernelOperations(t *testing.T) {
	livetest.Need(t)
	disks := []struct {
		path             string
		disk             string // that has the requests, if that is another
		through          bool   // the disk can write through its cache
		discards, zeroes bool
	}{{path: newLoop(t, emptyFile(t, 64<<20), 0), discards: true}}
	if livetest.Guest() {
		settings := []string{"memory_backed=1", "discard=1", "cache_size=1"}
		null, lower := newDisk(t, settings...), newDisk(t, settings...)
		disks = append(disks, disks[0], disks[0], disks[0])
		disks[1].path, disks[1].through = null.path(), true
		disks[2].path, disks[2].through, disks[2].disk = newMapped(t, lower.path(), 64<<20>>9), true, lower.name
		disks[3].path, disks[3].zeroes = virtioDisk(t), true
	}
	if hasScsiDebug() {
		disks = append(disks, disks[0])
		last := &disks[len(disks)-1]
		last.path, last.through, last.discards = scsiDisk(t, "delay=0"), true, false
	}
	livetest.Attempts(t, func(a *livetest.Attempt) {
		for _, args := range []string{"", "--split"} {
			tool := livetest.Start(t, append(strings.Fields(args), "-j", "-D", "-F")...)
			tool.Ready()
			want, wantThrough := map[string]uint64{}, map[string]uint64{}
			var names []string
			for _, d := range disks {
				f := openDirect(t, d.path)
				f.read(times, 4096)
				f.write(times, 4096)
				f.write(2*times, 65536)
				f.flush(times)
				f.writeThrough(times, 4096)
				name := d.disk
				if name == "" {
					name = filepath.Base(d.path)
				}
				names = append(names, name, filepath.Base(d.path))
				want[name+" read"], want[name+" write"] = times, 4*times
				// The kernel flushes behind each write that is to go through the cache,
				// and before that once more if the disk could not do it.
				want[name+" flush"] = 3 * times
				if d.through {
					want[name+" flush"] = 2 * times
					wantThrough[name+" write"] = times
				}
				if d.discards {
					f.discard(times, 65536)
					want[name+" discard"] = times
				}
				if d.zeroes {
					f.zero(times, 65536)
					want[name+" write_zeroes"] = times
				}
			}
			res := tool.Stop()
			a.Lost(res)
			all, failed := histograms(t, res)
			all = slices.DeleteFunc(all, func(o object) bool { return o.Disk == nil || !slices.Contains(names, *o.Disk) })
			if len(failed) > 0 {
				a.Errorf("%s: errors %+v", args, failed)
			}
			phases := []string{"device"}
			if args == "--split" {
				phases = []string{"queue", "device", "total"}
			}
			for _, phase := range phases {
				of := slices.DeleteFunc(slices.Clone(all), func(o object) bool { return o.Phase != phase })
				check(a, args+" "+phase, counted(of, diskAndOp), want)
				// Where the disk can't, the kernel takes the flag away, early or late.
				through := slices.DeleteFunc(of, func(o object) bool {
					return !slices.Contains(o.Flags, "fua") || wantThrough[*o.Disk+" write"] == 0
				})
				check(a, args+" "+phase+", with fua", counted(through, diskAndOp), wantThrough)
			}
		}
	})
}

// TestKernelLatency has a disk that takes 10 ms for each request.
func TestKernelLatency(t *testing.T) {
	livetest.NeedOnce(t)
	disk := newDisk(t, "irqmode=2", "completion_nsec=10000000")
	livetest.Attempts(t, func(a *livetest.Attempt) {
		objects, text := livetest.Start(t, "-j", "-d", disk.name), livetest.Start(t, "-e", "--percentiles", "-d", disk.name)
		other := livetest.Start(t, "-j", "-d", "nullb0") // which the module makes
		objects.Ready()
		text.Ready()
		other.Ready()
		disk.open().read(times, 4096)
		res, shown := objects.Stop(), text.Stop()
		if all, _ := histograms(t, other.Stop()); len(all) > 0 {
			a.Errorf("of another disk: %+v", all)
		}
		a.Lost(res)
		a.Lost(shown)
		all, _ := histograms(t, res)
		if len(all) != 1 || all[0].Count != times || all[0].Min < 10_000_000 || all[0].Sum < times*10_000_000 || all[0].Phase != "device" {
			a.Errorf("%+v", all)
		}
		sum := 0
		for _, line := range shown.Over(t, 0).Lines() {
			var low, high, n int
			if _, err := fmt.Sscanf(line, "%d -> %d : %d |", &low, &high, &n); err != nil {
				continue
			}
			sum += n
			if high < 10_000 && n > 0 {
				a.Errorf("shorter than can be: %s", line)
			}
		}
		if sum != times || !strings.Contains(shown.Stdout, fmt.Sprintf(" usecs, count: %d\n", times)) {
			a.Errorf("%d requests: %s", sum, shown.Stdout)
		}
	})
}

// TestKernelSplit has a disk that does one request at a time, and several tasks that
// read: their requests wait for each other.
func TestKernelSplit(t *testing.T) {
	livetest.NeedOnce(t)
	disk := newDisk(t, "irqmode=2", "completion_nsec=3000000", "hw_queue_depth=1")
	// Without a scheduler they would wait before there is a request.
	setQueue(t, disk.name, "scheduler", "kyber")
	const readers = 4
	livetest.Attempts(t, func(a *livetest.Attempt) {
		tool := livetest.Start(t, "-j", "--split", "-d", disk.name)
		queued := livetest.Start(t, "-j", "-Q", "-d", disk.name)
		tool.Ready()
		queued.Ready()
		var wg sync.WaitGroup
		for range readers {
			f := disk.open()
			wg.Go(func() {
				if err := readDirect(f.fd, times, 4096); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		res, other := tool.Stop(), queued.Stop()
		a.Lost(res)
		a.Lost(other)
		all, _ := histograms(t, res)
		whole, _ := histograms(t, other)
		if len(all) != 3 || len(whole) != 1 || whole[0].Phase != "total" || whole[0].Count != readers*times {
			a.Errorf("%+v, %+v", all, whole)
			return
		}
		queue, device, total := all[0], all[1], all[2]
		for _, o := range all {
			if o.Count != readers*times {
				a.Errorf("%s: %d requests, not %d", o.Phase, o.Count, readers*times)
			}
		}
		// One waits at least until the one before it is done. Exactly the same requests
		// are in all phases.
		if queue.Max < 3_000_000 || device.Min < 3_000_000 || total.Sum != queue.Sum+device.Sum || total.Max < queue.Max {
			a.Errorf("queue %+v, device %+v, total %+v", queue, device, total)
		}
	})
}

// TestKernelErrors reads what the disk can't.
func TestKernelErrors(t *testing.T) {
	livetest.Need(t)
	disk := newDisk(t, "memory_backed=1")
	disk.set("badblocks", "+0-7")
	livetest.Attempts(t, func(a *livetest.Attempt) {
		file := filepath.Join(t.TempDir(), "disks.prom")
		objects, text := livetest.Start(t, "-j", "-d", disk.name), livetest.Start(t, "-d", disk.name, "--openmetrics", file)
		objects.Ready()
		text.Ready()
		f, b := disk.open(), aligned(4096)
		for range times {
			if _, err := unix.Pread(f.fd, b, 0); err != unix.EIO {
				t.Fatalf("a bad block was read: %v", err)
			}
			if _, err := unix.Pread(f.fd, b, 8192); err != nil {
				t.Fatal(err)
			}
		}
		res, shown := objects.Stop(), text.Stop()
		a.Lost(res)
		a.Lost(shown)
		all, failed := histograms(t, res)
		if len(all) != 1 || all[0].Count != 2*times || all[0].Errors != times {
			a.Errorf("%+v", all)
		}
		if len(failed) != 1 || failed[0].Disk == nil || *failed[0].Disk != disk.name || failed[0].Error != "EIO" || failed[0].Count != times {
			a.Errorf("%+v", failed)
		}
		metrics, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			fmt.Sprintf("\nbiolatency_seconds_count{phase=\"device\"} %d\n", 2*times),
			fmt.Sprintf("\nbiolatency_errors_total{disk=\"%s\",error=\"EIO\"} %d\n", disk.name, times),
		} {
			if !strings.Contains(string(metrics), want) {
				a.Errorf("no %q in %s", want, metrics)
			}
		}
		if want := fmt.Sprintf("\nerrors on %s: %d EIO\n", disk.name, times); !strings.Contains(shown.Stdout, want) {
			a.Errorf("no %q in %s", want, shown.Stdout)
		}
	})
}

// TestKernelGone takes the disk away while its requests are counted.
func TestKernelGone(t *testing.T) {
	livetest.Need(t)
	livetest.Attempts(t, func(a *livetest.Attempt) {
		tool := livetest.Start(t, "-j", "-D")
		tool.Ready()
		disk := newDisk(t)
		f := disk.open()
		f.read(times, 4096)
		unix.Close(f.fd)
		f.fd = -1
		disk.remove()
		res := tool.Stop()
		a.Lost(res)
		all, _ := histograms(t, res)
		// The kernel itself looks for partitions.
		if n := counted(all, diskAndOp)[disk.name+" "]; n < times || n > 2*times {
			a.Errorf("%d requests to a disk that is gone, not %d: %+v", n, times, all)
		}
	})
}

// file gives something to read from, and the disk that it is on ("" if that is not
// known): in a guest a disk, else a file of this machine's.
func file(t testing.TB) string {
	t.Helper()
	if livetest.Guest() {
		return newDisk(t).path()
	}
	f, err := os.CreateTemp("/var/tmp", "gobcc-biolatency-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(f.Name()) })
	defer f.Close()
	if _, err := f.Write(make([]byte, 64*128<<10)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// plainRead reports whether these are reads of data, and not what a file system reads to
// find them, or what is read ahead of a program that is run.
func plainRead(o object) bool {
	return o.Op == "read" && !slices.Contains(o.Flags, "meta") && !slices.Contains(o.Flags, "rahead")
}

// TestKernelIssuer counts for whoever issued a request.
func TestKernelIssuer(t *testing.T) {
	livetest.NeedOnce(t)
	path := file(t)
	cgroup := livetest.Cgroup(t)
	if name, err := filter.CgroupPath(cgroup.ID); err != nil || name != "/"+filepath.Base(cgroup.Path) {
		t.Errorf("cgroup %s is called %q, %v", cgroup.Path, name, err)
	}
	if name, err := filter.CgroupPath(1 << 60); err == nil {
		t.Errorf("a cgroup that is not there is called %q", name)
	}
	one, two := livetest.Child(t, reader, path), livetest.Child(t, reader, path)
	cgroup.Enter(one.Pid())
	livetest.Attempts(t, func(a *livetest.Attempt) {
		tests := []struct {
			args string
			want uint64
		}{
			{"-p " + strconv.Itoa(one.Pid()), times},
			{fmt.Sprintf("-p %d,%d", one.Pid(), two.Pid()), 3 * times},
			{"-p " + strconv.Itoa(two.Pid()) + " -c " + cgroup.Path, 0},
			{"-n no-such", 0},
		}
		var tools []*livetest.Tool
		for _, test := range tests {
			tools = append(tools, livetest.Start(t, append(strings.Fields(test.args), "-j", "-F")...))
		}
		for _, tool := range tools {
			tool.Ready()
		}
		for child, n := range map[*livetest.ChildProcess]int{one: times, two: 2 * times} {
			if answer := child.Do(strconv.Itoa(n), "4096"); answer != "read" {
				t.Fatal(answer)
			}
		}
		plain := func(all []object) []object {
			return slices.DeleteFunc(all, func(o object) bool { return !plainRead(o) })
		}
		for i, test := range tests {
			res := tools[i].Stop()
			a.Lost(res)
			all, _ := histograms(t, res)
			if n := counted(plain(all), func(object) string { return "" })[""]; n != test.want {
				a.Errorf("%s: %d reads, not %d", test.args, n, test.want)
			}
		}
	})
}

// TestKernelCrowded has more requests than there is room for, until those that were
// there first are used again.
func TestKernelCrowded(t *testing.T) {
	livetest.NeedOnce(t)
	d := newDisk(t, "hw_queue_depth=64")
	opts, _ := tooltest.Parse(t, &about, defineFlags, "-j", "-d", d.name)
	if err := opts.check(nil, func() ([]disk, error) { return listDisks("/sys/block") }); err != nil {
		t.Fatal(err)
	}
	spec := tooltest.Object(t, loadBpf)
	spec.Maps[bpfMapPlaces].MaxEntries = 1
	spec.Maps[bpfMapStarts].MaxEntries = 2
	var stdout, stderr bytes.Buffer
	ctx, stop := context.WithCancel(t.Context())
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd, err := unix.Dup(int(w.Fd())) // the tool closes it
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Setenv("GOBCC_READY_FD", strconv.Itoa(fd))
	ended := make(chan error)
	go func() {
		ended <- opts.trace(ctx, &cli.Env{Name: about.Name, Stdout: &stdout, Stderr: &stderr}, spec, nil)
	}()
	if _, err := r.Read(make([]byte, 1)); err != nil {
		stop()
		t.Fatalf("the tool was not ready: %v, %v", err, <-ended)
	}
	f := d.open()
	f.read(10*times, 4096)
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	res := livetest.Result{Stdout: stdout.String(), Stderr: stderr.String()}
	lost, possibly := res.Lost()
	all, _ := histograms(t, res)
	shown := counted(all, func(object) string { return "" })[""]
	livetest.Account(t, "requests", 10*times, shown, lost, possibly)
	// The kernel takes the device's 64 requests in turn, mostly.
	if possibly == 0 && (lost == 0 || shown < 2*times || !strings.Contains(res.Stderr, "too many requests under way")) {
		t.Errorf("%d shown, %d lost: %s", shown, lost, res.Stderr)
	}
}

// TestKernelKeys has more to tell apart than there is room for.
func TestKernelKeys(t *testing.T) {
	livetest.NeedOnce(t)
	path := file(t)
	child := livetest.Child(t, actor, path)
	room := slotsFor(1, ebpf.MustPossibleCPU())
	n := room + times
	livetest.Attempts(t, func(a *livetest.Attempt) {
		tool := livetest.Start(t, "-j", "--by", "comm", "-p", strconv.Itoa(child.Pid()))
		tool.Ready()
		if answer := child.Do(strconv.Itoa(n)); answer != "read" {
			t.Fatal(answer)
		}
		res := tool.Stop()
		lost, possibly := res.Lost()
		all, _ := histograms(t, res)
		shown := uint64(0)
		for comm, n := range counted(all, func(o object) string { return o.Comm }) {
			shown += n
			if !strings.HasPrefix(comm, "actor ") || n != 1 && possibly == 0 {
				a.Errorf("%d requests of %q", n, comm)
			}
		}
		if len(all) != room && possibly == 0 {
			a.Errorf("%d were told apart, not %d", len(all), room)
		}
		livetest.Account(t, "keys", uint64(n), shown, lost, possibly)
		if want := fmt.Sprintf("%d too many disks, operations, cgroups or comms to tell apart", times); possibly == 0 && !strings.Contains(res.Stderr, want) {
			a.Errorf("%q is not in %s", want, res.Stderr)
		}
	})
}

// TestKernelWriteback has data written back for a cgroup, which no task of it does.
func TestKernelWriteback(t *testing.T) {
	livetest.Need(t)
	disk := newDisk(t, "memory_backed=1")
	cgroup := livetest.Cgroup(t)
	if err := os.WriteFile(filepath.Join(filepath.Dir(cgroup.Path), "cgroup.subtree_control"), []byte("+io +memory"), 0); err != nil {
		t.Fatalf("turn on the controllers io and memory: %v", err)
	}
	child := livetest.Child(t, writer, disk.path())
	cgroup.Enter(child.Pid())
	livetest.Attempts(t, func(a *livetest.Attempt) {
		other := livetest.Cgroup(t)
		in, out := livetest.Start(t, "-j", "--by", "cgroup,op", "-c", cgroup.Path), livetest.Start(t, "-j", "-c", other.Path)
		in.Ready()
		out.Ready()
		if answer := child.Do(); answer != "written" {
			t.Fatal(answer)
		}
		unix.Sync()
		res, none := in.Stop(), out.Stop()
		a.Lost(res)
		all, _ := histograms(t, res)
		n := counted(all, func(o object) string { return fmt.Sprint(o.Op, " ", o.CgroupID) })
		if write := fmt.Sprint("write ", cgroup.ID); n[write] == 0 || len(n) != 1 {
			a.Errorf("requests %v, and none of %q", n, write)
		}
		if all, _ := histograms(t, none); len(all) > 0 {
			a.Errorf("requests of a cgroup that made none: %+v", all)
		}
	})
}

// TestKernelCommand counts the requests of a command.
func TestKernelCommand(t *testing.T) {
	livetest.NeedOnce(t)
	path := file(t)
	livetest.Attempts(t, func(a *livetest.Attempt) {
		res := livetest.Run(t, append([]string{"-j", "--by", "comm,op", "--"}, livetest.RoleArgv(reader, path, strconv.Itoa(times), "4096")...)...)
		a.Lost(res)
		n := uint64(0)
		lines := res.Over(t, 0).Lines()
		for i, line := range lines {
			if line == "read" { // from the command
				lines = slices.Delete(lines, i, i+1)
				break
			}
			// Without a newline it is before another.
			if rest, ok := strings.CutPrefix(line, "read{"); ok {
				lines[i] = "{" + rest
				break
			}
		}
		for _, o := range livetest.Decode[object](t, lines) {
			if plainRead(o) {
				n += o.Count
				if want := filepath.Base(os.Args[0]); !strings.HasPrefix(want, o.Comm) {
					a.Errorf("by %q, not %q", o.Comm, want)
				}
			}
		}
		if n != times {
			a.Errorf("%d reads, not %d", n, times)
		}
	})
}

func TestKernelNoLeak(t *testing.T) {
	livetest.NeedOnce(t)
	before := livetest.Snapshot(t)
	tool := livetest.Start(t, "--split", "--by", "disk,op,cgroup,comm", "0.1")
	tool.Ready()
	tool.WaitLine(func(line string) bool { return line == "" })
	tool.Stop().Over(t, 0)
	livetest.NoLeak(t, before)
}
