package main

import (
	"slices"
	"strings"
	"testing"
)

// read gives the console's text to a console, as QEMU does.
func read(text string) *console {
	c := &console{}
	for line := range strings.Lines(text) {
		c.line(line)
	}
	c.flush()
	return c
}

func TestConsole(t *testing.T) {
	for _, test := range []struct {
		name, text string
		output     []string // of the one package
		ended      bool
		status     int
		panic      string
		errors     int
		done       bool
	}{
		{
			name: "clean",
			text: "\r\ngobcc: start 6.1.0\r\ngobcc: package p\r\n> one\r\n> two\r\n>  \r\ngobcc: exit 1\r\ngobcc: done\r\n" +
				"[    4.284249] reboot: Power down\r\n",
			output: []string{"one", "two", " "}, ended: true, status: 1, done: true,
		},
		{
			name: "kernel message between lines",
			text: "gobcc: start 6.1.0\r\ngobcc: package p\r\n> one\r\n[    1.000001] hello\r\n> two\r\ngobcc: exit 0\r\ngobcc: done\r\n",

			output: []string{"one", "two"}, ended: true, done: true,
		},
		{
			name: "kernel messages within lines",
			text: "gobcc: start 6.1.0\r\ngobcc: package p\r\n" +
				"> --- PA[    1.000001] hello\r\n[    1.000002][  T123] hello\r\nSS: Test\r[   12.345678] again\r\nOne\r\n" +
				"gobcc: ex[  112.345678][    C0] more\r\nit 0\r\ngobcc: done\r\n",
			output: []string{"--- PASS: TestOne"}, ended: true, done: true,
		},
		{
			name: "tests that print what looks like kernel messages",
			text: "gobcc: start 6.1.0\r\ngobcc: package p\r\n> a [    1.000001] b\r\n> c [    1.000002] d\r\n> e\r\n" +
				"> f [    1.000003] g\r\ngobcc: exit 0\r\ngobcc: done\r\n",
			output: []string{"a [    1.000001] b", "c [    1.000002] d", "e", "f [    1.000003] g"}, ended: true, done: true,
		},
		{
			name: "panic at boot",
			text: "[    0.100000] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n[    0.100001] CPU: 0\r\n",

			panic: "Kernel panic - not syncing: VFS: Unable to mount root fs",
		},
		{
			name: "panic in a test",
			text: "gobcc: start 6.1.0\r\ngobcc: package p\r\n> === RUN   TestO[    9.100000] Kernel panic - not syncing: Fatal exception\r\n" +
				"[    9.100001] Kernel panic - not syncing: second\r\n",
			output: []string{"=== RUN   TestO[    9.100000] Kernel panic - not syncing: Fatal exception"},
			panic:  "Kernel panic - not syncing: Fatal exception",
		},
		{
			name:   "no verdict",
			text:   "gobcc: start 6.1.0\r\ngobcc: package p\r\n> one\r\n> two",
			output: []string{"one", "two"},
		},
		{
			name: "init fails",
			text: "gobcc: start 6.1.0\r\ngobcc: error mount bpf at /sys/fs/bpf: no such device\r\n",

			errors: 1,
		},
		{
			name: "garbled control lines",
			text: "gobcc: start 6.1.0\r\ngobcc: package p\r\ngobcc: exit zero\r\ngobcc: dune\r\n",

			errors: 2,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := read(test.text)
			run := packageRun{}
			if len(c.Packages) > 0 {
				run = c.Packages[0]
			}
			if !slices.Equal(run.Output, test.output) || run.Ended != test.ended || run.Status != test.status {
				t.Errorf("package run is %q, ended %v with %d, want %q, %v with %d",
					run.Output, run.Ended, run.Status, test.output, test.ended, test.status)
			}
			if c.Panic != test.panic {
				t.Errorf("panic is %q, want %q", c.Panic, test.panic)
			}
			if len(c.Errors) != test.errors {
				t.Errorf("errors are %q, want %d", c.Errors, test.errors)
			}
			if c.Done != test.done {
				t.Errorf("done is %v, want %v", c.Done, test.done)
			}
			if want := strings.Contains(test.text, "gobcc: start"); c.started() != want {
				t.Errorf("started is %v, want %v", c.started(), want)
			}
		})
	}
}

func TestConsoleKmsg(t *testing.T) {
	c := read("gobcc: start 7.3.4\r\ngobcc: kmsg WARNING: CPU: 1 PID: 7\r\ngobcc: done\r\n")
	if c.Release != "7.3.4" || !slices.Equal(c.Kmsg, []string{"WARNING: CPU: 1 PID: 7"}) {
		t.Errorf("release %q, warnings %q", c.Release, c.Kmsg)
	}
}

func TestConsoleTail(t *testing.T) {
	c := read(strings.Repeat("noise\r\n", 3*tailLines) + "last\r\n")
	if len(c.tail) != tailLines || c.tail[tailLines-1] != "last" {
		t.Errorf("tail is %d lines that end in %q, want %d that end in \"last\"", len(c.tail), c.tail[len(c.tail)-1], tailLines)
	}
}
