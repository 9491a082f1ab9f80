package main

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAskNoJVM leaves processes alone that are no JVM, and doesn't ask one that has ended,
// whose pid may be another's.
func TestAskNoJVM(t *testing.T) {
	n := &namer{handles: map[uint32]int{}, say: func(text string) { t.Error(text) }}
	defer n.close()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	handle, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	n.handles[uint32(cmd.Process.Pid)] = handle
	n.askJVMs()
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the process did not end by itself: %v", err)
	}
	n.askJVMs()
}

// TestNotes says once what is missing in a file.
func TestNotes(t *testing.T) {
	var said []string
	n := &namer{say: func(text string) { said = append(said, text) }}
	n.sayProblems([]*group{{notes: []string{"a", "b"}}, {}, {notes: []string{"a"}}})
	if !slices.Equal(said, []string{"a", "b"}) {
		t.Errorf("it said %q", said)
	}
}

func TestSayList(t *testing.T) {
	for _, test := range []struct {
		texts int
		last  string
	}{{0, ""}, {maxProblems, "4"}, {maxProblems + 1, "1 more"}, {maxProblems + 3, "3 more"}} {
		var said, texts []string
		for i := range test.texts {
			texts = append(texts, fmt.Sprint(i))
		}
		n := &namer{say: func(text string) { said = append(said, text) }}
		n.sayList(texts, "%d more")
		if test.texts > 0 && (len(said) != min(test.texts, maxProblems+1) || said[len(said)-1] != test.last) || !slices.Equal(said[:min(len(said), maxProblems)], texts[:min(len(texts), maxProblems)]) {
			t.Errorf("of %d texts it said %q", test.texts, said)
		}
	}
}

// TestSayKernel says once, and before the end, that the kernel hides its names.
func TestSayKernel(t *testing.T) {
	var said []string
	n := &namer{say: func(text string) { said = append(said, text) }, read: make(chan struct{})}
	n.sayKernel()
	if len(said) > 0 {
		t.Errorf("before the names are read it said %q", said)
	}
	n.problem = errors.New("they are hidden")
	close(n.read)
	n.sayKernel()
	g := newGroup(origin{kind: kindKernel})
	g.frame(1)
	n.nameGroup(g)
	n.sayProblems([]*group{g})
	if want := []string{"no names of kernel functions: they are hidden"}; !slices.Equal(said, want) {
		t.Errorf("it said %q, not %q", said, want)
	}
}
