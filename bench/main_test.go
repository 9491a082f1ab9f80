package main

import (
	"io"
	"strings"
	"testing"
	"time"
)

func TestParseOptions(t *testing.T) {
	o, err := parseOptions([]string{"-rounds", "3", "-only", "gobcc,libbpf", "-n", "10"})
	if err != nil {
		t.Fatal(err)
	}
	if o.rounds != 3 || o.pairs != 10 || strings.Join(o.only, " ") != "gobcc libbpf" || strings.Join(o.tools, " ") != "opensnoop execsnoop tcpconnect biolatency profile" || o.stats || o.limit != 6*time.Minute {
		t.Errorf("got %+v", o)
	}
}

func TestParseOptionsTools(t *testing.T) {
	o, err := parseOptions([]string{"-execs", "5", "-tool", "bin/x", "execsnoop"})
	if err != nil || o.execs != 5 || o.tool != "bin/x" || strings.Join(o.tools, " ") != "execsnoop" {
		t.Errorf("got %+v, %v", o, err)
	}
}

func TestParseOptionsBad(t *testing.T) {
	for _, args := range []string{"-rounds 0", "-n 0", "-busy-rounds -1", "-only sysdig", "-peers some", "more", "-execs 0", "-connects 0", "-reads 0", "-burns 0", "-tool x", "-tool x opensnoop execsnoop", "-compare x execsnoop", "-bogus"} {
		if _, err := parseOptions(strings.Fields(args)); err == nil {
			t.Errorf("%s: no error", args)
		}
	}
}

func TestParseLoadTime(t *testing.T) {
	got, err := parseLoadTime("1050648567 1050467086 61234567\n")
	if err != nil || got != (loadTime{1050648567, 1050467086, 61234567}) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, text := range []string{"", "1 2\n", "1 2 x\n", "1 2 3 4\n"} {
		if _, err := parseLoadTime(text); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

func TestLastBytes(t *testing.T) {
	var l lastBytes
	if got := l.String(); got != "nothing on standard error" {
		t.Errorf("nothing written: got %q", got)
	}
	for range 1000 {
		if _, err := io.WriteString(&l, "warning, of no use\n"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(&l, "cannot attach\n"); err != nil {
		t.Fatal(err)
	}
	if got := l.String(); len(got) > 2<<10 || !strings.HasSuffix(got, "\ncannot attach") {
		t.Errorf("kept %d bytes, ending in %q", len(got), got[max(0, len(got)-20):])
	}
}
