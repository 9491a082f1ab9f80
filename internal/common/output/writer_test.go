package output

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// countingSink counts writes and can be told to fail.
type countingSink struct {
	bytes.Buffer
	writes int
	err    error
}

func (s *countingSink) Write(p []byte) (int, error) {
	s.writes++
	if s.err != nil {
		return 0, s.err
	}
	return s.Buffer.Write(p)
}

func TestWriterOneWriteADrain(t *testing.T) {
	sink := &countingSink{}
	w := NewWriter(sink)
	for drain := range 3 {
		for i := range 23 {
			if err := w.EndRow(fmt.Appendf(w.Row(), "%d %d\n", drain, i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil { // nothing to write
		t.Fatal(err)
	}
	if lines := strings.Count(sink.String(), "\n"); sink.writes != 3 || lines != 69 {
		t.Errorf("%d lines in %d writes, want 69 in 3", lines, sink.writes)
	}
}

func TestWriterBoundsItsBuffer(t *testing.T) {
	sink := &countingSink{}
	w := NewWriter(sink)
	row := strings.Repeat("x", 999) + "\n"
	for range 1000 {
		if _, err := w.Write([]byte(row)); err != nil {
			t.Fatal(err)
		}
	}
	if c := cap(w.Row()); c > 4*flushSize {
		t.Errorf("buffer grew to %d bytes", c)
	}
	if sink.Len()%len(row) != 0 || sink.Len() == 0 {
		t.Errorf("%d bytes written before the flush: not whole rows", sink.Len())
	}
	if err := w.Flush(); err != nil || sink.Len() != 1000*len(row) {
		t.Errorf("%d bytes, %v, want %d", sink.Len(), err, 1000*len(row))
	}
}

func TestWriterDropsUnfinishedRow(t *testing.T) {
	sink := &countingSink{}
	w := NewWriter(sink)
	_ = append(w.Row(), "never ended"...)
	if err := w.EndRow(append(w.Row(), "row\n"...)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil || sink.String() != "row\n" {
		t.Errorf("wrote %q, %v", sink.String(), err)
	}
}

func TestWriterErrorSticks(t *testing.T) {
	sink := &countingSink{err: &os.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.ENOSPC}}
	w := NewWriter(sink)
	if err := w.EndRow(append(w.Row(), "row\n"...)); err != nil {
		t.Fatal(err)
	}
	err := w.Flush()
	if want := "write to standard output: no space left on device"; err == nil || err.Error() != want {
		t.Errorf("Flush: %v, want %q", err, want)
	}
	sink.err = nil
	if _, again := w.Write([]byte("row\n")); again != err || w.Flush() != err || w.Err() != err {
		t.Errorf("later calls do not give %v", err)
	}
	if sink.writes != 1 || sink.Len() != 0 {
		t.Errorf("%d writes, %d bytes after the error", sink.writes, sink.Len())
	}
}

func TestWriterClosedPipe(t *testing.T) {
	r, f, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r.Close()
	w := NewWriter(f)
	if err := w.EndRow(append(w.Row(), "row\n"...)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Flush: %v, want EPIPE", err)
	}
}

// limitFileSize makes writes beyond size fail part-way, as a full disk does.
func limitFileSize(t *testing.T, size uint64) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
			t.Error(err)
		}
	})
}

func TestWriterLeavesNoCutLine(t *testing.T) {
	for _, c := range []struct {
		name   string
		flags  int
		before string // in the file
		limit  uint64
		want   string
	}{
		{"new file", 0, "", 10, "row1\nrow2\n"},
		{"cut in the second row", 0, "", 8, "row1\n"},
		{"cut in the first row", 0, "", 3, ""},
		{"append", os.O_APPEND, "old\n", 12, "old\nrow1\n"},
		{"append, cut in the first row", os.O_APPEND, "old\n", 6, "old\n"},
		{"inside an older file", 0, "0123456789abcdefghij", 8, "row1\nrow89abcdefghij"},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "out")
			if err := os.WriteFile(name, []byte(c.before), 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(name, os.O_WRONLY|c.flags, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			limitFileSize(t, c.limit)
			w := NewWriter(f)
			if err := w.EndRow(append(w.Row(), "row1\nrow2\nrow3\n"...)); err != nil {
				t.Fatal(err)
			}
			if err := w.Flush(); !errors.Is(err, syscall.EFBIG) {
				t.Errorf("Flush: %v, want EFBIG", err)
			}
			got, err := os.ReadFile(name)
			if err != nil || string(got) != c.want {
				t.Errorf("file holds %q, %v, want %q", got, err, c.want)
			}
			end, err := f.Seek(0, 1)
			if size := int64(len(got)); c.name != "inside an older file" && (err != nil || end != size) {
				t.Errorf("offset %d, %v, in a file of %d bytes", end, err, size)
			}
		})
	}
}

// TestRemoveCutLineSparesOthers: a line that another process appended after ours
// must not be cut off with it.
func TestRemoveCutLineSparesOthers(t *testing.T) {
	name := filepath.Join(t.TempDir(), "out")
	var files [2]*os.File
	for i := range files {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	for i, line := range []string{"row1\nro", "theirs\n"} {
		if _, err := files[i].WriteString(line); err != nil {
			t.Fatal(err)
		}
	}
	removeCutLine(files[0], []byte("row1\nro"))
	if got, err := os.ReadFile(name); err != nil || string(got) != "row1\nrotheirs\n" {
		t.Errorf("file holds %q, %v", got, err)
	}
}

func TestWriterFullDevice(t *testing.T) {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := NewWriter(f)
	if err := w.EndRow(append(w.Row(), "row\n"...)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Flush: %v, want ENOSPC", err)
	}
}

func TestIsTerminal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if IsTerminal(w.Fd()) {
		t.Error("a pipe is a terminal")
	}
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("SKIPPED: no pseudo terminal to test with: %v", err)
	}
	defer ptmx.Close()
	if !IsTerminal(ptmx.Fd()) {
		t.Error("a pseudo terminal is not a terminal")
	}
}

// TestNoAllocation: printing a row, in text and in JSON, allocates nothing once
// the buffer has its size.
func TestNoAllocation(t *testing.T) {
	w := NewWriter(&countingSink{})
	comm, path := []byte("中文\xff"), []byte("/tmp/\x1b[2J\u202e\u0301")
	drain := func() {
		row := w.Row()
		row = AppendDuration(row, 1_234_567_890, time.Second, 9, -14)
		row = AppendInt(row, 1234, -6)
		row = append(row, ' ')
		row = AppendPadded(row, comm, 16)
		row = append(row, ' ')
		row = AppendPadded(row, []byte(ErrnoName(512)), 8)
		row = AppendOctal(row, 0o644, 8)
		row = AppendHex(row, 1<<40, 16)
		row = AppendUint(row, 1<<63, 20)
		row = AppendTime(row, 1_790_000_000_123_456_789)
		row = AppendEscaped(row, path)
		row = append(row, '\n')
		row = appendTestRow(row, comm, path)
		if err := w.EndRow(row); err != nil {
			t.Fatal(err)
		}
		w.buf = w.buf[:0] // the sink's own growth is not counted
	}
	drain()
	if n := testing.AllocsPerRun(100, drain); n != 0 {
		t.Errorf("%v allocations a row", n)
	}
}

func BenchmarkTextRow(b *testing.B) {
	b.ReportAllocs()
	w := NewWriter(&countingSink{})
	comm, path := []byte("bash"), []byte("/usr/lib/x86_64-linux-gnu/libc.so.6")
	for b.Loop() {
		row := AppendInt(w.Row()[:0], 1234, -6)
		row = append(row, ' ')
		row = AppendPadded(row, comm, 16)
		row = append(row, ' ')
		row = AppendInt(row, 3, 3)
		row = append(row, ' ')
		row = AppendInt(row, 0, 3)
		row = append(row, ' ')
		row = AppendEscaped(row, path)
		w.buf = append(row, '\n')
	}
}
