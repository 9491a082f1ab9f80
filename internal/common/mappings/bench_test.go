package mappings

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/perfevent"
)

// What a first look at all processes of this machine costs.
func BenchmarkSnapshot(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		tl := New(Options{})
		_ = tl.Snapshot(nil) // What it can't read is not measured.
		b.ReportMetric(float64(len(tl.processes)), "processes")
		b.ReportMetric(float64(len(tl.files.held)), "files")
		tl.Close()
	}
}

// What the records of a short-lived process cost: a fork, an exec, five mappings of files
// that are known, and the end.
func BenchmarkApply(b *testing.B) {
	tl := New(Options{})
	defer tl.Close()
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(exe, &st); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	time := uint64(0)
	for b.Loop() {
		pid := uint32(1<<20 + time%1000)
		for _, r := range []*perfevent.Record{
			fork(time, 1, pid), exec(time, pid, "x"), mmap(time, pid, 1, 1, 0, exe), mmap(time, pid, 10, 1, 0, "[vdso]"),
			mmap(time, pid, 5, 1, 0, exe), mmap(time, pid, 7, 1, 0, exe), mmap(time, pid, 9, 1, 0, exe), exit(time, pid, pid),
		} {
			r.Major, r.Minor, r.Inode = unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino
			tl.Apply(r)
		}
		time++
	}
}

func BenchmarkFind(b *testing.B) {
	p := &Process{}
	for i := range uint64(200) {
		p.insert(Mapping{i << 16, i<<16 + 0x8000, 0, &File{}, 0})
	}
	i := uint64(0)
	for b.Loop() {
		p.Find(i * 977 % (200 << 16))
		i++
	}
}
