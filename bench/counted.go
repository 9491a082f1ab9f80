package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A tool that counts writes tables and no row that says which event it is for. So it is
// held against what the kernel counts of all disks.

// bucketLine is a line of a histogram: of BCC's, libbpf-tools' and gobcc's "64 -> 127",
// of bpftrace's "[64, 128)".
var bucketLine = regexp.MustCompile(`^ *(?:\d+ +-> \d+ *:|\[.*\)) +(\d+) +\|`)

// bucketCount gives how many requests a line of output stands for.
func bucketCount(line []byte) int64 {
	m := bucketLine.FindSubmatch(line)
	if m == nil {
		return 0
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// diskRequests adds up what the kernel has counted for all disks that have queues of
// requests: some of the fields of their statistics.
func diskRequests(sysBlock string, fields ...int) (sum int64, err error) {
	disks, err := filepath.Glob(filepath.Join(sysBlock, "*", "mq"))
	if err != nil {
		return 0, err
	}
	for _, disk := range disks {
		text, err := os.ReadFile(filepath.Join(filepath.Dir(disk), "stat"))
		if err != nil {
			return 0, err
		}
		n, err := addFields(string(text), fields)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", filepath.Dir(disk), err)
		}
		sum += n
	}
	return sum, nil
}

// The fields of /sys/block/DISK/stat: the reads, writes, discards (since 4.18) and flushes
// (since 5.5) that were completed, and the requests under way.
var (
	completedFields = []int{0, 4, 11, 15}
	underWayField   = 8
)

// addFields adds up those fields that there are.
func addFields(stat string, wanted []int) (sum int64, err error) {
	fields := strings.Fields(stat)
	for _, i := range wanted {
		if i >= len(fields) {
			continue
		}
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// countedRows adds up what a tool has counted.
type countedRows struct {
	line     func(line []byte) int64
	events   int64
	saidLost bool
}

func (c *countedRows) count(r io.Reader) error {
	return eachLine(r, func(line []byte) {
		c.events += c.line(line)
		c.saidLost = c.saidLost || lostWord.Match(line)
	})
}

// awaitCounting waits until so many programs of the tracer have run at least so often, and
// returns the time of that.
func (b *bench) awaitCounting(ctx context.Context, p *process, wanted int, runs uint64) (time.Duration, error) {
	stats, err := enableStats()
	if err != nil {
		return 0, err
	}
	defer stats.Close()
	const pause = time.Millisecond
	for {
		programs, err := readPrograms(p.cmd.Process.Pid)
		if err != nil {
			programs = nil // some were just being made or given back
		}
		running := 0
		for _, program := range programs {
			if program.count >= runs {
				running++
			}
		}
		if running >= wanted {
			return now(), nil
		}
		select {
		case err := <-p.read:
			if err != nil {
				return 0, fmt.Errorf("read its output: %w", err)
			}
			// Its error output is whole only once it has been waited for.
			_ = p.cmd.Wait()
			return 0, fmt.Errorf("ended before it counted anything: %s", p.stderr)
		case <-ctx.Done():
			return 0, fmt.Errorf("waiting for it to count something: %w; it wrote: %s", ctx.Err(), p.stderr)
		case <-time.After(pause):
		}
	}
}

// measureCounted is measure for a tool that counts. The load's requests are shown if
// the tool has counted at least as many as the kernel has for all disks from before the
// load to its end, but for those that were under way already, perhaps from before the
// tool's own beginning.
func (b *bench) measureCounted(ctx context.Context, t tracer, loaded bool) (run, error) {
	var load loadTime
	var underWay, before, after int64
	rows := &countedRows{line: b.scenario.counted}
	result, err := b.trace(ctx, t, nil, rows.count, func(ctx context.Context) (err error) {
		if !loaded {
			return nil
		}
		if underWay, err = diskRequests("/sys/block", underWayField); err != nil {
			return err
		}
		if before, err = diskRequests("/sys/block", completedFields...); err != nil {
			return err
		}
		if load, err = b.runLoad(ctx, t.load...); err != nil {
			return err
		}
		after, err = diskRequests("/sys/block", completedFields...)
		return err
	})
	if err != nil {
		return run{}, err
	}
	result.load = load
	if loaded {
		result.shown = int64(b.scenario.count) - max(after-before-underWay-rows.events, 0)
	}
	result.saidLost = rows.saidLost || lostWord.MatchString(result.stderr)
	return result, nil
}
