package attach

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// maxActive is how many calls of a function may wait for their return at once. Left
// to itself the kernel takes the number of CPUs, or twice that and at least 10 if
// it is preemptible, and forgets the returns of all others: with a few threads
// that wait in the function, most are missed.
const maxActive = 1024

// groupPrefix begins the names of our probes in tracefs; the process id follows.
const groupPrefix = "gobcc_"

// probeFiles are where tracefs may be.
var probeFiles = []string{"/sys/kernel/tracing/kprobe_events", "/sys/kernel/debug/tracing/kprobe_events"}

// kretprobe attaches to the return of a function. That many calls at once can only
// be asked for through tracefs; where it is not to be had, the kernel's number has
// to do.
func kretprobe(symbol string, prog *ebpf.Program) (link.Link, error) {
	l, err := link.Kretprobe(symbol, prog, &link.KprobeOptions{
		RetprobeMaxActive: maxActive,
		TraceFSPrefix:     groupPrefix + strconv.Itoa(os.Getpid()),
	})
	if err != nil {
		return link.Kretprobe(symbol, prog, nil)
	}
	return l, nil
}

// leftover matches a line of kprobe_events that is ours: "r1024:gobcc_123_ab12/…".
var leftover = regexp.MustCompile(`^[pr]\d*:(` + groupPrefix + `(\d+)_\w+/\S+)`)

// removeLeftovers takes out of tracefs the probes of tools that were killed. They do
// nothing, but they would stay until the machine is started anew. The kernel
// refuses to remove one that is in use.
func removeLeftovers() error {
	for _, name := range probeFiles {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_APPEND, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		defer f.Close()
		var stale []string
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if m := leftover.FindStringSubmatch(lines.Text()); m != nil {
				if _, err := os.Stat("/proc/" + m[2]); errors.Is(err, os.ErrNotExist) {
					stale = append(stale, m[1])
				}
			}
		}
		if err := lines.Err(); err != nil {
			return fmt.Errorf("look for probes of tools that were killed: %w", err)
		}
		for _, probe := range stale {
			if _, err := f.WriteString("-:" + strings.TrimSpace(probe) + "\n"); err != nil {
				return fmt.Errorf("remove the probe %s of a tool that was killed: %w", probe, err)
			}
		}
		return nil
	}
	return nil
}
