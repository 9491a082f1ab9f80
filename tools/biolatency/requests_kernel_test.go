package main

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

// ran gives how often a program ran, as a tool with --stats said.
func ran(t testing.TB, res livetest.Result, program string) int {
	t.Helper()
	m := regexp.MustCompile(`program ` + program + `_\w+( and \d+ spares)? ran (\d+) times`).FindStringSubmatch(res.Stderr)
	if m == nil {
		t.Fatalf("nothing is said of program %s: %s", program, res.Stderr)
	}
	n, err := strconv.Atoi(m[2])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestKernelZones counts operations on the zones of a disk.
func TestKernelZones(t *testing.T) {
	livetest.Need(t)
	disk := newDisk(t, "zoned=1", "zone_size=1")
	const sectors = 1 << 20 >> 9
	livetest.Attempts(t, func(a *livetest.Attempt) {
		tool := livetest.Start(t, "-j", "-F", "-d", disk.name)
		tool.Ready()
		f := disk.open()
		for i := range uint64(times) {
			f.zone(openZone, i*sectors, sectors)
			f.zone(closeZone, i*sectors, sectors)
			f.zone(finishZone, i*sectors, sectors)
		}
		f.zone(resetZone, 0, times*sectors) // each by itself
		f.zone(resetZone, 0, 64*sectors)    // all of them at once
		res := tool.Stop()
		a.Lost(res)
		all, _ := histograms(t, res)
		check(a, "zones", counted(all, func(o object) string { return o.Op }), map[string]uint64{
			"zone_open": times, "zone_close": times, "zone_finish": times, "zone_reset": times, "zone_reset_all": 1,
		})
	})
}

// TestKernelMerged has the kernel make one request of three: the third becomes part of
// the first, and then so does the second.
func TestKernelMerged(t *testing.T) {
	livetest.NeedOnce(t)
	const depth = 8
	disk := newDisk(t, "irqmode=2", "completion_nsec=200000000", "hw_queue_depth="+strconv.Itoa(depth))
	setQueue(t, disk.name, "scheduler", "mq-deadline")
	setQueue(t, disk.name, "nr_requests", "128")
	var places []int64
	// They keep the disk busy, so that the others wait where they can be merged. One
	// more is next in turn, and can't be.
	for i := range int64(depth + 1) {
		places = append(places, i<<20)
	}
	for i := range int64(times) {
		at := (depth+1+i)<<20 + 4096
		places = append(places, at, at+8192, at+4096)
	}
	const want = depth + 1 + times
	livetest.Attempts(t, func(a *livetest.Attempt) {
		split := livetest.Start(t, "-j", "--split", "--stats", "-d", disk.name)
		plain := livetest.Start(t, "-j", "-d", disk.name)
		split.Ready()
		plain.Ready()
		before, merges := kernelCounts(t, disk.name)
		disk.open().readAtOnce(4096, places...)
		after, n := kernelCounts(t, disk.name)
		if n -= merges; n != 2*times || after["read"]-before["read"] != want {
			t.Fatalf("the kernel made %d requests and %d merges, not %d and %d", after["read"]-before["read"], n, want, 2*times)
		}
		res, other := split.Stop(), plain.Stop()
		a.Lost(res)
		a.Lost(other)
		all, _ := histograms(t, res)
		check(a, "split", counted(all, func(o object) string { return o.Phase }), map[string]uint64{"queue": want, "device": want, "total": want})
		all, _ = histograms(t, other)
		check(a, "plain", counted(all, func(o object) string { return o.Phase }), map[string]uint64{"device": want})
		if n := ran(t, res, "merge"); n < times {
			t.Errorf("%d requests were merged with others, not %d", n, times)
		}
	})
}

// TestKernelRequeued has a disk that refuses every second request at first, or does it
// only in part: it goes back to the queue. Each counts once.
func TestKernelRequeued(t *testing.T) {
	livetest.Need(t)
	for _, test := range []struct {
		name, opts, program string
	}{
		{"busy", "0x8000", "requeue"},
		{"in parts", "0x100", "complete"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := scsiDisk(t, "opts="+test.opts, "every_nth=2")
			livetest.Attempts(t, func(a *livetest.Attempt) {
				tool := livetest.Start(t, "-j", "--split", "--stats", "-F", "-d", filepath.Base(path))
				tool.Ready()
				f, b := openDirect(t, path), aligned(65536)
				for range times {
					if n, err := unix.Pread(f.fd, b, 0); err != nil || n != len(b) {
						t.Fatalf("read %d bytes: %v", n, err)
					}
				}
				res := tool.Stop()
				a.Lost(res)
				all, _ := histograms(t, res)
				check(a, test.name, counted(all, func(o object) string { return o.Phase + " " + o.Op }),
					map[string]uint64{"queue read": times, "device read": times, "total read": times})
				// What each request takes in any case, and what comes back takes more.
				once := map[string]int{"requeue": 0, "complete": times}[test.program]
				if n := ran(t, res, test.program); n <= once+times/3 {
					t.Errorf("program %s ran only %d times for %d requests", test.program, n, times)
				}
			})
		})
	}
}

// TestKernelTimeout has a disk that forgets a request: after a second the kernel takes
// it back and issues it again. It counts once, with all that time.
func TestKernelTimeout(t *testing.T) {
	livetest.Need(t)
	path := scsiDisk(t)
	name := filepath.Base(path)
	timeout := filepath.Join("/sys/block", name, "device/timeout")
	old, err := os.ReadFile(timeout)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(timeout, []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile(timeout, old, 0); err != nil {
			t.Error(err)
		}
	}()
	livetest.Attempts(t, func(a *livetest.Attempt) {
		tool := livetest.Start(t, "-j", "--split", "-F", "-d", name)
		tool.Ready()
		const forget = "4"
		scsiSet(t, "every_nth", strconv.Itoa(times)) // the first one in so many, or a later one
		scsiSet(t, "opts", forget)
		openDirect(t, path).read(times, 4096)
		res := tool.Stop()
		a.Lost(res)
		all, _ := histograms(t, res)
		check(a, "with one that was forgotten", counted(all, func(o object) string { return o.Phase + " " + o.Op }),
			map[string]uint64{"queue read": times, "device read": times, "total read": times})
		for _, o := range all {
			if longest := time.Duration(o.Max); longest >= time.Second != (o.Phase == "total") {
				a.Errorf("%s: the longest took %v", o.Phase, longest)
			}
		}
	})
}

// TestKernelGoneAtWork takes disks away while they have requests. What the kernel has
// given to the disk counts, once; what it refuses since then does not.
func TestKernelGoneAtWork(t *testing.T) {
	livetest.Need(t)
	type disk struct {
		name       string
		gone, back func()
	}
	kinds := map[string]func(t *testing.T) disk{
		"null_blk": func(t *testing.T) disk {
			d := newDisk(t, "irqmode=2", "completion_nsec=5000000", "hw_queue_depth=2")
			return disk{d.name, d.remove, func() {}}
		},
		"scsi_debug": func(t *testing.T) disk {
			name := filepath.Base(scsiDisk(t, "ndelay=5000000"))
			device, err := filepath.EvalSymlinks(filepath.Join("/sys/block", name, "device"))
			if err != nil {
				t.Fatal(err)
			}
			return disk{name, func() {
				if err := os.WriteFile(filepath.Join(device, "delete"), []byte("1"), 0); err != nil {
					t.Error(err)
				}
			}, func() { scanScsi(t) }}
		},
	}
	for kind, make := range kinds {
		t.Run(kind, func(t *testing.T) {
			livetest.Attempts(t, func(a *livetest.Attempt) {
				disk := make(t)
				tool := livetest.Start(t, "-j", "-D", "-F", "-Q")
				tool.Ready()
				const readers = 4
				var read [readers]uint64
				var busy, done sync.WaitGroup
				busy.Add(readers)
				for i := range readers {
					f := openDirect(t, "/dev/"+disk.name)
					done.Go(func() {
						for readDirect(f.fd, 1, 4096) == nil {
							if read[i]++; read[i] == times {
								busy.Done()
							}
						}
					})
				}
				busy.Wait()
				disk.gone()
				done.Wait()
				if n := underWay(t, tool.Pid()); n != 0 {
					t.Errorf("%d requests are still noted", n)
				}
				res := tool.Stop()
				a.Lost(res)
				all, _ := histograms(t, res)
				disk.back()
				want := read[0] + read[1] + read[2] + read[3]
				if n := counted(all, diskAndOp)[disk.name+" read"]; n != want || want < readers*times {
					a.Errorf("%d requests, not %d: %+v", n, want, all)
				}
			})
		})
	}
}

// TestKernelCgroups has two cgroups write at once.
func TestKernelCgroups(t *testing.T) {
	livetest.NeedOnce(t)
	path := file(t)
	one, two := livetest.Cgroup(t), livetest.Cgroup(t)
	few, more := livetest.Child(t, directWriter, path), livetest.Child(t, directWriter, path)
	one.Enter(few.Pid())
	two.Enter(more.Pid())
	livetest.Attempts(t, func(a *livetest.Attempt) {
		by := livetest.Start(t, "-j", "--by", "cgroup,op")
		first, second := livetest.Start(t, "-j", "-F", "-c", one.Path), livetest.Start(t, "-j", "-F", "-c", two.Path)
		for _, tool := range []*livetest.Tool{by, first, second} {
			tool.Ready()
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if answer := few.Do(strconv.Itoa(times)); answer != "written" {
				t.Error(answer)
			}
		})
		if answer := more.Do(strconv.Itoa(2 * times)); answer != "written" {
			t.Error(answer)
		}
		wg.Wait()
		for _, test := range []struct {
			tool *livetest.Tool
			what string
			want map[string]uint64
		}{
			{by, "by cgroup", map[string]uint64{fmt.Sprint(one.ID): times, fmt.Sprint(two.ID): 2 * times}},
			{first, "of one", map[string]uint64{"0": times}},
			{second, "of the other", map[string]uint64{"0": 2 * times}},
		} {
			res := test.tool.Stop()
			a.Lost(res)
			list, _ := histograms(t, res)
			got := counted(list, func(o object) string {
				if o.Op != "write" || test.tool == by && o.CgroupID != one.ID && o.CgroupID != two.ID {
					return ""
				}
				return fmt.Sprint(o.CgroupID)
			})
			delete(got, "")
			check(a, test.what, got, test.want)
		}
	})
}

// directWriter is a child that writes to a file without the cache: its arguments are
// the path, and how many times.
var directWriter = livetest.Role("direct writer", func(args []string) string {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err.Error()
	}
	fd, err := unix.Open(args[0], unix.O_WRONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	b := aligned(4096)
	for i := range n {
		if got, err := unix.Pwrite(fd, b, int64(i)<<12); err != nil || got != len(b) {
			return fmt.Sprintf("write: %d, %v", got, err)
		}
	}
	return "written"
})

// ext4Image is an empty file system, of 8 MiB, made by
//
//	export E2FSPROGS_FAKE_TIME=1700000000 ID=11111111-2222-3333-4444-555555555555
//	truncate -s 8M ext4.img
//	mke2fs -q -t ext4 -N 64 -m 0 -O ^metadata_csum,^64bit,^resize_inode -U $ID \
//		-E hash_seed=$ID,lazy_itable_init=0,lazy_journal_init=0,nodiscard ext4.img
//	gzip -9 -n ext4.img
const ext4Image = "testdata/ext4.img.gz"

// TestKernelFilesystem has a file system write what it likes, its journal too, to a disk
// that can't write through its cache: flushes come before and after.
func TestKernelFilesystem(t *testing.T) {
	livetest.Need(t)
	path := newLoop(t, fileSystem(t), 0)
	disk := filepath.Base(path)
	dir := t.TempDir()
	livetest.Namespace(t, func() {
		for _, cache := range []string{"write through", "write back"} {
			setQueue(t, disk, "write_cache", cache)
			livetest.Attempts(t, func(a *livetest.Attempt) {
				tool := livetest.Start(t, "-j", "--split", "-F", "-d", disk)
				tool.Ready()
				before, _ := kernelCounts(t, disk)
				if err := unix.Mount(path, dir, "ext4", 0, "discard"); err != nil {
					t.Fatalf("mount %s: %v", path, err)
				}
				for i := range times {
					name := filepath.Join(dir, strconv.Itoa(i))
					writeSynced(t, name)
					if err := os.Remove(name); err != nil {
						t.Error(err)
					}
				}
				if err := unix.Unmount(dir, 0); err != nil {
					t.Fatalf("unmount %s: %v", path, err)
				}
				want, _ := kernelCounts(t, disk)
				for op := range want {
					want[op] -= before[op]
				}
				res := tool.Stop()
				a.Lost(res)
				all, _ := histograms(t, res)
				for _, phase := range []string{"queue", "device", "total"} {
					of := slices.DeleteFunc(slices.Clone(all), func(o object) bool { return o.Phase != phase })
					got := counted(of, func(o object) string { return o.Op })
					if cache == "write through" {
						if want["flush"] > 0 || want["write"] < times || want["read"] == 0 || want["discard"] == 0 {
							t.Fatalf("the kernel counted %v", want)
						}
						delete(want, "flush")
					} else {
						if want["flush"] < times || want["write"] < times {
							t.Fatalf("the kernel counted %v", want)
						}
						// What the file system flushes without data the kernel counts as a
						// write too.
						if n := want["write"] - got["write"]; n > want["flush"] {
							a.Errorf("%s: %d writes, and the kernel counted %v", phase, got["write"], want)
						}
						want["write"] = got["write"]
					}
					check(a, cache+", "+phase, got, want)
				}
			})
		}
	})
}

// fileSystem gives a file that holds ext4Image.
func fileSystem(t testing.TB) string {
	t.Helper()
	packed, err := os.Open(ext4Image)
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	unpacked, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ext4.img")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(file, unpacked)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// writeSynced writes a file, and waits until it is on the disk.
func writeSynced(t testing.TB, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	_, err1 := f.Write(make([]byte, 20_000))
	if err := errors.Join(err1, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestKernelOwnDisk reads from this machine's own disk.
func TestKernelOwnDisk(t *testing.T) {
	livetest.NeedFast(t)
	path := file(t)
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	device := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	dir, err := filepath.EvalSymlinks(device)
	if err != nil {
		t.Skipf("SKIPPED: %s is on no disk: %v", path, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		dir = filepath.Dir(dir)
	}
	if _, err := os.Stat(filepath.Join(dir, "mq")); err != nil {
		t.Skipf("SKIPPED: %s has no requests of its own", dir)
	}
	disk := filepath.Base(dir)
	child := livetest.Child(t, reader, path)
	livetest.Attempts(t, func(a *livetest.Attempt) {
		pid := strconv.Itoa(child.Pid())
		all, only := livetest.Start(t, "-j", "-D", "-F", "-p", pid), livetest.Start(t, "-j", "-F", "-Q", "-p", pid, "-d", disk)
		all.Ready()
		only.Ready()
		if answer := child.Do(strconv.Itoa(times), "4096"); answer != "read" {
			t.Fatal(answer)
		}
		plain := func(res livetest.Result) []object {
			a.Lost(res)
			list, _ := histograms(t, res)
			return slices.DeleteFunc(list, func(o object) bool { return !plainRead(o) })
		}
		check(a, "-D", counted(plain(all.Stop()), diskAndOp), map[string]uint64{disk + " read": times})
		check(a, "-Q -d", counted(plain(only.Stop()), func(o object) string { return o.Phase }), map[string]uint64{"total": times})
	})
}

// TestKernelMillion counts a million requests in many intervals: each of them in one, or
// among the lost.
func TestKernelMillion(t *testing.T) {
	livetest.NeedOnce(t)
	var disk string
	if _, err := os.Stat("/sys/module/null_blk"); err == nil {
		disk = newDisk(t, "submit_queues=2", "irqmode=0").name
	} else {
		disk = filepath.Base(newLoop(t, emptyFile(t, 64<<20), 0))
	}
	// The kernel cuts what is read at once into requests of a page each.
	setQueue(t, disk, "max_sectors_kb", "4")
	const readers, requests = 4, 1_000
	reads := 250
	if kernel := os.Getenv("GOBCC_GUEST"); kernel != "" && kernel != "6.12" {
		reads = 25 // a million takes half a minute under emulation: on one kernel is enough
	}
	want := uint64(readers * reads * requests)
	const interval = 100 * time.Millisecond
	tool := livetest.Start(t, "-j", "--split", "-d", disk, "0.1")
	tool.Ready()
	before, _ := kernelCounts(t, disk)
	began := time.Now()
	var wg sync.WaitGroup
	for range readers {
		f := openDirect(t, "/dev/"+disk)
		wg.Go(func() {
			b := aligned(requests * 4096)
			for range reads {
				if n, err := unix.Pread(f.fd, b, 0); err != nil || n != len(b) {
					t.Errorf("read %d bytes: %d, %v", len(b), n, err)
					return
				}
			}
		})
	}
	wg.Wait()
	taken := time.Since(began)
	after, _ := kernelCounts(t, disk)
	if n := after["read"] - before["read"]; n != want {
		t.Fatalf("the kernel made %d requests, not %d", n, want)
	}
	res := tool.Stop()
	lost, possibly := res.Lost()
	all, _ := histograms(t, res)
	shown := counted(all, func(o object) string { return o.Phase })
	for _, phase := range []string{"queue", "device", "total"} {
		livetest.Account(t, phase, want, shown[phase], lost, possibly)
	}
	// How fast the disk is decides how many intervals there are.
	if n := len(all) / 3; reads == 250 && (n < 5 || n < int(taken/interval)/2) {
		t.Errorf("they were counted in %d intervals only, in %v", n, taken)
	}
}
