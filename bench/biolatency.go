package main

import (
	"fmt"
	"os"
	"strconv"
)

// biolatency is measured by a thread that reads from a disk, past the cache, each read
// being a request.
var biolatency = scenario{
	tool: "biolatency", event: "request", load: "diskload",
	about: "One load is %d direct reads of 4 KiB, one after the other, at random places of 256 MiB.",
	arguments: func(b *bench, p paths) []string {
		return []string{
			"-file", diskFile(p), "-parents", strconv.Itoa(b.parents), "-n", strconv.Itoa(b.scenario.count), "-cpu", strconv.Itoa(b.cpu),
		}
	},
	prepare: makeDiskFile,
	files:   "/var/tmp", // as /tmp may be in memory
	counted: bucketCount,
	own: []way{
		{name: ""},
		{name: "-Q", options: []string{"-Q"}},
		{name: "--split", options: []string{"--split"}},
		{name: "-D", options: []string{"-D"}},
		{name: "--by comm (1 key)", options: []string{"--by", "comm"}},
		{name: "--by comm (10 keys)", options: []string{"--by", "comm"}, load: []string{"-names", "10"}},
		{name: "--by comm (1000 keys)", options: []string{"--by", "comm"}, load: []string{"-names", "1000"}},
	},
	unit: "µs", unitNS: 1000, decimal: "%.2f",
	hard:          hard{title: "from 4 processes at once, on all CPUs", parents: 4},
	addedOfLibbpf: 0.8, programsOfLibbpf: 0.8,
}

// readFrom is the disk that the load reads from, or "" for a file.
var readFrom string

// nullDisk is a disk of null_blk, where that module is loaded: nothing is faster.
const nullDisk = "/dev/nullb0"

func diskFile(p paths) string {
	if readFrom != "" {
		return readFrom
	}
	if _, err := os.Stat(nullDisk); err == nil {
		return nullDisk
	}
	return p.present
}

// makeDiskFile makes the file that the load reads from, if that is no disk.
func makeDiskFile(p paths) error {
	file := diskFile(p)
	if file != p.present {
		return nil
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	part := make([]byte, 1<<20)
	for i := range part {
		part[i] = byte(i * 7) // a disk may know zeros without reading them
	}
	for range 256 {
		if _, err := f.Write(part); err != nil {
			return fmt.Errorf("write it: %w", err)
		}
	}
	return f.Sync()
}
