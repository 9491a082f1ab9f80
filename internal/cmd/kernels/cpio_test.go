package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestCpio(t *testing.T) {
	var archive bytes.Buffer
	c := newCpioWriter(&archive)
	c.Dir("tmp", 0o1777)
	c.Dir("/tmp/", 0o700) // there already
	c.CharDevice("dev/console", 0o600, 5, 1)
	c.File("/a/b/empty", 0o644, nil)
	c.File("a/b/four", 0o755, []byte("four"))
	c.File("a/five", 0o644, []byte("five."))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}

	want := []string{
		"41777 0,0 tmp 0 bytes",
		"40755 0,0 dev 0 bytes",
		"20600 5,1 dev/console 0 bytes",
		"40755 0,0 a 0 bytes",
		"40755 0,0 a/b 0 bytes",
		"100644 0,0 a/b/empty 0 bytes",
		"100755 0,0 a/b/four 4 bytes four",
		"100644 0,0 a/five 5 bytes five.",
	}
	got, err := readCpio(archive.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("archive reads back as\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	t.Run("cpio", func(t *testing.T) {
		if _, err := exec.LookPath("cpio"); err != nil {
			t.Skip("SKIPPED: no cpio on this machine to read the archive with")
		}
		cmd := exec.Command("cpio", "--list", "--quiet")
		cmd.Stdin = bytes.NewReader(archive.Bytes())
		out, err := output(cmd)
		if err != nil {
			t.Fatal(err)
		}
		want := "tmp dev dev/console a a/b a/b/empty a/b/four a/five"
		if got := strings.Join(strings.Fields(string(out)), " "); got != want {
			t.Errorf("cpio lists %q, want %q", got, want)
		}
	})
}

// readCpio returns a line for each entry of a newc archive, in which each header
// and each content must start at a multiple of four bytes.
func readCpio(archive []byte) ([]string, error) {
	var lines []string
	aligned := func(n int) int { return (n + 3) &^ 3 }
	for inodes := map[int]bool{}; ; {
		if len(archive) < 110 || string(archive[:6]) != "070701" {
			return nil, fmt.Errorf("no header after %q", lines)
		}
		field := func(i int) int {
			n, err := strconv.ParseUint(string(archive[6+8*i:14+8*i]), 16, 32)
			if err != nil {
				return -1
			}
			return int(n)
		}
		ino, mode, size, major, minor, nameSize := field(0), field(1), field(6), field(9), field(10), field(11)
		name := string(archive[110 : 110+nameSize])
		if !strings.HasSuffix(name, "\x00") || strings.Count(name, "\x00") != 1 {
			return nil, fmt.Errorf("name %q", name)
		}
		if inodes[ino] {
			return nil, fmt.Errorf("%q has the inode number of another", name)
		}
		inodes[ino] = true
		archive = archive[aligned(110+nameSize):]
		data := archive[:size]
		archive = archive[aligned(size):]
		if name == "TRAILER!!!\x00" {
			if len(archive) > 0 {
				return nil, fmt.Errorf("%d bytes after the end", len(archive))
			}
			return lines, nil
		}
		line := fmt.Sprintf("%o %d,%d %s %d bytes %s", mode, major, minor, strings.TrimSuffix(name, "\x00"), size, data)
		lines = append(lines, strings.TrimSpace(line))
	}
}

// failAfter is a writer that fails once n bytes were written.
type failAfter struct{ n int }

func (f *failAfter) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestCpioWriteError(t *testing.T) {
	c := newCpioWriter(&failAfter{200})
	c.File("a", 0o644, make([]byte, 100))
	c.File("b", 0o644, nil)
	if err := c.Close(); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("Close returns %v, want the writer's error", err)
	}
}
