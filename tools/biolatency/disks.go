package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// disk is a disk of this machine.
type disk struct {
	name string
	dev  uint32 // as the kernel side has it
}

// devOf puts a device's numbers together as the kernel side does.
func devOf(major, minor uint32) uint32 { return major<<20 | minor }

// The bounds of requestsOf.
const (
	leastRequests = 16 << 10
	mostRequests  = 1 << 20
	leastBios     = 64 << 10 // a request has several
)

// requestsOf gives how many requests the disks in a directory such as /sys/block may
// have, twice over, for those that come later.
func requestsOf(dir string) uint32 {
	sum := 0
	lists, _ := filepath.Glob(filepath.Join(dir, "*", "queue", "nr_requests")) // the pattern is good
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil { // it went just now
			continue
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			continue
		}
		queues, _ := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(list)), "mq", "*"))
		sum += n * len(queues)
	}
	return uint32(min(leastRequests+2*sum, mostRequests))
}

// listDisks gives the disks in a directory such as /sys/block, by name.
func listDisks(dir string) ([]disk, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("-d: list the disks: %w", err)
	}
	var all []disk
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name(), "dev"))
		if os.IsNotExist(err) { // it went just now
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("-d: list the disks: %w", err)
		}
		var major, minor uint32
		if _, err := fmt.Sscanf(string(text), "%d:%d", &major, &minor); err != nil {
			return nil, fmt.Errorf("-d: the numbers of %s are %q", e.Name(), strings.TrimSpace(string(text)))
		}
		// What is a / in a name is a ! there: cciss!c0d0.
		all = append(all, disk{strings.ReplaceAll(e.Name(), "!", "/"), devOf(major, minor)})
	}
	return all, nil
}
