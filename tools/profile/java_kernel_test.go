package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

// burnerJava burns CPU time for each line that it reads.
const burnerJava = `
class Burner {
	static int burn(int n) {
		int sum = 0;
		for (int i = 0; i < n; i++)
			sum = sum * 31 + (sum >>> 7 ^ i) % 1013;
		return sum;
	}

	public static void main(String[] args) throws Exception {
		for (int i = 0; i < 50; i++)
			burn(1_000_000);
		System.out.println("ready");
		while (System.in.read() >= 0)
			System.out.println("done " + burn(200_000_000));
	}
}
`

// TestKernelJava has functions of Java named, and only when the JVM may be asked.
func TestKernelJava(t *testing.T) {
	livetest.NeedReal(t, "guests have no Java")
	if _, err := exec.LookPath("java"); err != nil {
		t.Skip("SKIPPED: no java here")
	}
	source := filepath.Join(t.TempDir(), "Burner.java")
	if err := os.WriteFile(source, []byte(burnerJava), 0o644); err != nil {
		t.Fatal(err)
	}
	java := exec.Command("java", "-XX:+PreserveFramePointer", source)
	in, err := java.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := java.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(pipe)
	if err := java.Start(); err != nil {
		t.Fatal(err)
	}
	pid := java.Process.Pid
	t.Cleanup(func() {
		_ = java.Process.Kill()
		_ = java.Wait()
		os.Remove(fmt.Sprintf("/tmp/perf-%d.map", pid))
		os.Remove(fmt.Sprintf("/tmp/.java_pid%d", pid))
	})
	if line, err := out.ReadString('\n'); line != "ready\n" {
		t.Skipf("SKIPPED: java doesn't run this program: %q %v", line, err)
	}
	sample := func(args ...string) (livetest.Result, uint64, uint64) {
		t.Helper()
		run := livetest.Start(t, append(args, "--json", "-F", "499", "-p", fmt.Sprint(pid))...)
		run.Ready()
		if _, err := io.WriteString(in, "x"); err != nil {
			t.Fatal(err)
		}
		if line, err := out.ReadString('\n'); !strings.HasPrefix(line, "done") {
			t.Fatalf("java answered %q %v", line, err)
		}
		r := run.Stop()
		stacks, _ := objects(t, r)
		generated := count(stacks, func(s object) bool { return len(s.User) > 0 && s.User[0].Type == "jit" })
		named := count(stacks, func(s object) bool { return has(s.User, "Burner.burn") })
		if generated == 0 {
			t.Fatalf("no generated code was sampled:\n%s", r.Stdout)
		}
		return r, named, generated
	}
	if r, named, generated := sample(); named != 0 {
		t.Errorf("%d of %d samples are named, and the JVM was not asked:\n%s", named, generated, r.Stdout)
	}
	r, named, generated := sample("--java-perfmap")
	if strings.Contains(r.Stderr, "from version 17") {
		t.Skip("SKIPPED: " + r.Stderr)
	}
	if named == 0 || named*2 < generated || strings.Contains(r.Stderr, "--java-perfmap") {
		t.Errorf("%d of %d samples are named: %s\n%s", named, generated, r.Stderr, r.Stdout)
	}
}
