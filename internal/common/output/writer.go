package output

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// flushSize is how many bytes of whole rows may wait for the next [Writer.Flush]
// before they are written without it, so that a burst does not grow the buffer.
const flushSize = 64 << 10

// Writer buffers rows for standard output. The event loop calls [Writer.Flush]
// each time it has taken all that was there, so that a drain costs one write.
// Only whole rows are written.
//
// The first failed write sticks: every later call returns it and writes
// nothing.
type Writer struct {
	sink io.Writer
	buf  []byte
	err  error
}

// NewWriter gives a Writer to w, which is standard output or stands for it.
func NewWriter(w io.Writer) *Writer {
	return &Writer{sink: w}
}

// Row gives the buffer to append a row to; [Writer.EndRow] takes it back. A row
// that is not handed back is dropped.
func (w *Writer) Row() []byte { return w.buf }

// EndRow takes the buffer that [Writer.Row] gave, with rows appended that end
// in a newline.
func (w *Writer) EndRow(buf []byte) error {
	if w.err != nil {
		return w.err
	}
	w.buf = buf
	if len(w.buf) >= flushSize {
		return w.Flush()
	}
	return nil
}

// Write buffers p, which holds whole lines.
func (w *Writer) Write(p []byte) (int, error) {
	if err := w.EndRow(append(w.Row(), p...)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush writes what is buffered. The error wraps the errno: a reader that went
// away is errors.Is(err, syscall.EPIPE). When a regular file takes only part of
// the rows (the disk is full), the line that was cut is taken off its end.
func (w *Writer) Flush() error {
	if w.err != nil || len(w.buf) == 0 {
		return w.err
	}
	n, err := w.sink.Write(w.buf)
	if err == nil && n < len(w.buf) {
		err = io.ErrShortWrite
	}
	if err != nil {
		if f, ok := w.sink.(*os.File); ok {
			removeCutLine(f, w.buf[:max(n, 0)])
		}
		// The path of a standard stream says nothing; the errno does.
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		w.err = fmt.Errorf("write to standard output: %w", err)
	}
	w.buf = w.buf[:0]
	return w.err
}

// Err gives the error that stuck, or nil.
func (w *Writer) Err() error { return w.err }

// removeCutLine shortens f by the unfinished line at the end of written, which
// was just written to it. It does nothing unless f is a regular file that ends
// exactly where we stopped: then those last bytes are ours. That holds for a
// file opened to append as well, where the kernel moves our offset to the end
// of what we wrote, so that another writer's line after ours shows as a greater
// size and is left alone.
func removeCutLine(f *os.File, written []byte) {
	cut := 0
	for cut < len(written) && written[len(written)-1-cut] != '\n' {
		cut++
	}
	if cut == 0 {
		return
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	end, err := f.Seek(0, io.SeekCurrent)
	if err != nil || end != info.Size() || end < int64(cut) {
		return
	}
	end -= int64(cut)
	if f.Truncate(end) != nil {
		return
	}
	// Others share our offset (the shell that began the redirection): without
	// this their next write would leave a hole of zeros. Nothing is left to do
	// if it fails.
	_, _ = f.Seek(end, io.SeekStart)
}

// IsTerminal reports whether the file descriptor is a terminal.
func IsTerminal(fd uintptr) bool {
	_, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
	return err == nil
}
