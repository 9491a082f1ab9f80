package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/output"
)

// A screen is a terminal that shows one picture after the other, and then is again as
// it was. What is written to standard error meanwhile stands below the picture, and once
// more behind the last.
type screen struct {
	terminal *os.File
	stderr   io.Writer
	signals  chan os.Signal
	on       bool
	notes    []string
	dropped  int // notes that were too many
}

// mostNotes are kept.
const mostNotes = 1000

// screenOn gives the screen that standard output is; nil if it is none.
func screenOn(stdout, stderr io.Writer, getenv func(string) string) *screen {
	f, ok := stdout.(*os.File)
	if !ok || !output.IsTerminal(f.Fd()) || getenv("TERM") == "dumb" || getenv("TERM") == "" {
		return nil
	}
	return &screen{terminal: f, stderr: stderr, signals: make(chan os.Signal, 8)}
}

// What terminals are told, all of which know it: another screen is shown meanwhile,
// without a cursor, and lines that are too long are cut.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
	exitScreen  = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	firstRow    = "\x1b[H"
	clearRight  = "\x1b[K"
	clearBelow  = "\x1b[J"
)

func (s *screen) enter() error {
	s.on = true
	signals := []os.Signal{unix.SIGWINCH}
	if !signal.Ignored(unix.SIGTSTP) { // as it is where nobody could continue it
		signals = append(signals, unix.SIGTSTP)
	}
	signal.Notify(s.signals, signals...)
	_, err := io.WriteString(s.terminal, enterScreen)
	return err
}

// leave gives the terminal back.
func (s *screen) leave() {
	if !s.on {
		return
	}
	s.on = false
	signal.Stop(s.signals)
	_, _ = io.WriteString(s.terminal, exitScreen) // it may be gone
}

// end gives the terminal back with the last picture on it, and all notes.
func (s *screen) end(lines []string) {
	if !s.on {
		return
	}
	s.leave()
	lines = slices.DeleteFunc(lines, func(line string) bool { return line == "" })
	if s.dropped > 0 {
		lines = append(lines, fmt.Sprintf("%d remarks before these are not kept", s.dropped))
	}
	_, _ = io.WriteString(s.terminal, strings.Join(append(lines, s.notes...), "\n")+"\n")
}

// Write takes what goes to standard error.
func (s *screen) Write(p []byte) (int, error) {
	f, ok := s.stderr.(*os.File)
	if !s.on || !ok || !output.IsTerminal(f.Fd()) {
		return s.stderr.Write(p)
	}
	for line := range strings.Lines(string(p)) {
		s.note(strings.TrimSuffix(line, "\n"))
	}
	return len(p), nil
}

// note adds a line to those that stand below the picture.
func (s *screen) note(line string) {
	s.notes = append(s.notes, line)
	if len(s.notes) > mostNotes {
		s.notes = slices.Delete(s.notes, 0, 1)
		s.dropped++
	}
}

// size is how many rows and columns there are; 24 and 80 if the terminal can't tell.
func (s *screen) size() (rows, columns int) {
	w, err := unix.IoctlGetWinsize(int(s.terminal.Fd()), unix.TIOCGWINSZ)
	if err != nil || w.Row == 0 || w.Col == 0 {
		return 24, 80
	}
	return int(w.Row), int(w.Col)
}

// draw puts a picture in the place of the one there is, in one write and without wiping
// that out first, so that nothing flickers.
func (s *screen) draw(lines []string) error {
	var b bytes.Buffer
	b.WriteString(firstRow)
	for i, line := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(line + clearRight)
	}
	b.WriteString(clearBelow)
	_, err := s.terminal.Write(b.Bytes())
	return err
}

// changed reports whether the picture is to be drawn again: the terminal has another
// size, or the user had stopped the tool and it goes on now.
func (s *screen) changed() (bool, error) {
	changed := false
	for {
		select {
		case sig := <-s.signals:
			changed = true
			if sig != unix.SIGTSTP {
				continue
			}
			s.leave()
			stopSelf()
			if err := s.enter(); err != nil {
				return false, err
			}
		default:
			return changed, nil
		}
	}
}

// stopSelf stops this process until it is told to go on. By a signal to this very
// thread: it has come when this returns.
func stopSelf() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGSTOP)
}

// show draws the map as it is now.
func (p *printer) show() error {
	rows, columns := p.screen.size()
	return p.screen.draw(p.heatmap.picture(rows, columns, p.screen.notes))
}

// writeLive adds a table to the map, and shows it: as lines, if there is no screen.
func (p *printer) writeLive(dst []byte, t *table) ([]byte, error) {
	p.heatmap.add(p, t)
	if p.screen == nil {
		return appendFailures(p.heatmap.appendLines(dst), t.failed), nil
	}
	for line := range strings.Lines(string(appendFailures(nil, t.failed))) {
		p.screen.note(t.time.Format(time.TimeOnly) + " " + strings.TrimSuffix(line, "\n"))
	}
	return dst, p.show()
}

// leaveScreen ends the pictures, if there are any.
func (p *printer) leaveScreen() {
	if p.screen != nil {
		rows, columns := p.screen.size()
		p.screen.end(p.heatmap.picture(rows, columns, nil))
	}
}
