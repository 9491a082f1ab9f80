package command

import (
	"os"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

func TestHeldArgs(t *testing.T) {
	for _, h := range []heldArgs{
		{fd: 3},
		{fd: 31, ignored: []syscall.Signal{syscall.SIGHUP, syscall.SIGINT}},
		{fd: 4, id: &identity{uid: 0, gid: 7, groups: []int{}}},
		{fd: 4, id: &identity{uid: 4294967294, gid: 0, groups: []int{8, 4294967294}}},
	} {
		args := append(h.encode(), "cmd", "", "-x")
		got, argv, ok := decodeHeldArgs(args)
		if !ok || !reflect.DeepEqual(got, h) || !reflect.DeepEqual(argv, []string{"cmd", "", "-x"}) {
			t.Errorf("%q: %+v, %q, %v", args, got, argv, ok)
		}
	}
	for _, args := range [][]string{
		nil,
		{"tool"},
		{heldName},
		{heldName, "3", "", ""}, // no command
		{"tool", "3", "", "", "cmd"},
		{heldName, "x", "", "", "cmd"},
		{heldName, "3", "x", "", "cmd"},
		{heldName, "3", "", "1", "cmd"},
		{heldName, "3", "", "1,x", "cmd"},
	} {
		if h, argv, ok := decodeHeldArgs(args); ok {
			t.Errorf("%q is taken for a held child: %+v, %q", args, h, argv)
		}
	}
}

// TestNotHeldByAccident gives a tool the name and arguments of a held child,
// with another file where the socket would be: it must go its ordinary way.
func TestNotHeldByAccident(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	cmd := exec.Command(self)
	cmd.Args = []string{heldName, "3", "", "", "echo", "ran as the command"}
	cmd.Env = append(os.Environ(), toolVar+"=run")
	cmd.ExtraFiles = []*os.File{null}
	out, err := cmd.CombinedOutput()
	// As an ordinary tool its command is "3", which is not there.
	if status := cmd.ProcessState.ExitCode(); status != 127 || !strings.Contains(string(out), `run "3": no such command`) {
		t.Errorf("status %d, %v: %s", status, err, out)
	}
}
