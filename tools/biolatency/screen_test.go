package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal makes a terminal of this size, whose other end is given too.
func terminal(t testing.TB, rows, columns int) (far, near *os.File) {
	t.Helper()
	far, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("make a terminal: %v", err)
	}
	t.Cleanup(func() { far.Close() })
	fd := int(far.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if near, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	resize(t, far, rows, columns)
	return far, near
}

func resize(t testing.TB, f *os.File, rows, columns int) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(rows), Col: uint16(columns)}); err != nil {
		t.Fatal(err)
	}
}

// written gives what came to the far end up to here.
func written(t testing.TB, far, near *os.File) string {
	t.Helper()
	const end = "\x04end"
	if _, err := near.WriteString(end); err != nil {
		t.Fatal(err)
	}
	var all []byte
	for !bytes.HasSuffix(all, []byte(end)) {
		b := make([]byte, 4096)
		n, err := far.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b[:n]...)
	}
	return strings.TrimSuffix(string(all), end)
}

func screenOf(t testing.TB, near *os.File, term string) *screen {
	t.Helper()
	return screenOn(near, near, func(name string) string { return map[string]string{"TERM": term}[name] })
}

func TestScreen(t *testing.T) {
	far, near := terminal(t, 30, 100)
	s := screenOf(t, near, "xterm")
	if _, err := fmt.Fprintln(s, "before"); err != nil {
		t.Fatal(err)
	}
	if err := s.enter(); err != nil {
		t.Fatal(err)
	}
	if rows, columns := s.size(); rows != 30 || columns != 100 {
		t.Errorf("%d rows of %d columns", rows, columns)
	}
	if got, want := written(t, far, near), "before\r\n"+enterScreen; got != want {
		t.Errorf("%q was written, not %q", got, want)
	}
	if err := s.draw([]string{"one", "", "two"}); err != nil {
		t.Fatal(err)
	}
	if got, want := written(t, far, near), "\x1b[Hone\x1b[K\r\r\n\x1b[K\r\r\ntwo\x1b[K\x1b[J"; got != want {
		t.Errorf("%q was written, not %q", got, want)
	}
	if _, err := fmt.Fprintln(s, "a remark"); err != nil || written(t, far, near) != "" {
		t.Errorf("a remark was written into the picture: %v", err)
	}
	s.end([]string{"one", "", "two"})
	if got, want := written(t, far, near), exitScreen+"one\r\ntwo\r\na remark\r\n"; got != want {
		t.Errorf("%q was written, not %q", got, want)
	}
	// From here on nothing is special.
	s.end([]string{"one"})
	if _, err := fmt.Fprintln(s, "behind"); err != nil {
		t.Fatal(err)
	}
	if got := written(t, far, near); got != "behind\r\n" {
		t.Errorf("%q was written", got)
	}
}

func TestResize(t *testing.T) {
	far, near := terminal(t, 30, 100)
	s := screenOf(t, near, "xterm")
	if err := s.enter(); err != nil {
		t.Fatal(err)
	}
	defer s.leave()
	if changed, err := s.changed(); changed || err != nil {
		t.Errorf("it changed at once: %v", err)
	}
	resize(t, far, 20, 60)
	s.signals <- unix.SIGWINCH // as the terminal sends to those in its foreground
	if changed, err := s.changed(); !changed || err != nil {
		t.Errorf("it did not change: %v", err)
	}
	if rows, columns := s.size(); rows != 20 || columns != 60 {
		t.Errorf("%d rows of %d columns", rows, columns)
	}
	resize(t, far, 0, 0) // as a serial line has it
	if rows, columns := s.size(); rows != 24 || columns != 80 {
		t.Errorf("%d rows of %d columns", rows, columns)
	}
}

func TestNoScreen(t *testing.T) {
	_, near := terminal(t, 30, 100)
	for _, term := range []string{"dumb", ""} {
		if screenOf(t, near, term) != nil {
			t.Errorf("a terminal of type %q has pictures", term)
		}
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if screenOf(t, null, "xterm") != nil || screenOn(&bytes.Buffer{}, null, os.Getenv) != nil {
		t.Error("what is no terminal has pictures")
	}
}

// Where standard error is somewhere else, it goes there at once.
func TestErrorsElsewhere(t *testing.T) {
	_, near := terminal(t, 30, 100)
	var b bytes.Buffer
	s := screenOf(t, near, "xterm")
	s.stderr = &b
	if err := s.enter(); err != nil {
		t.Fatal(err)
	}
	defer s.leave()
	if _, err := fmt.Fprintln(s, "a remark"); err != nil || b.String() != "a remark\n" || len(s.notes) > 0 {
		t.Errorf("%q, %q, %v", b.String(), s.notes, err)
	}
}

func TestNotesAreBounded(t *testing.T) {
	var s screen
	for i := range mostNotes + 5 {
		s.note(fmt.Sprint(i))
	}
	if len(s.notes) != mostNotes || s.dropped != 5 || s.notes[0] != "5" {
		t.Errorf("%d notes from %q on, %d dropped", len(s.notes), s.notes[0], s.dropped)
	}
}
