package main

import (
	"os"
	"strings"
	"testing"
)

func TestPeakResident(t *testing.T) {
	got, err := peakResident(strings.NewReader("Name:\tx\nVmPeak:\t  900 kB\nVmHWM:\t    13744 kB\nVmRSS:\t 1 kB\n"))
	if err != nil || got != 13744<<10 {
		t.Errorf("got %d, %v, want %d", got, err, 13744<<10)
	}
	if _, err := peakResident(strings.NewReader("Name:\tkthreadd\n")); err == nil {
		t.Error("a status without VmHWM: no error")
	}
}

func TestMappedMaps(t *testing.T) {
	const smaps = `00400000-00500000 r-xp 00000000 fe:00 1 /x/anon_inode:bpf-mapper
Size:               1024 kB
Rss:                 512 kB
VmFlags: rd ex mr mw me
7f0000000000-7f0000001000 rw-s 00000000 00:0f 12 anon_inode:bpf-map
Size:                  4 kB
Rss:                   4 kB
Pss:                   4 kB
7f0000001000-7f0001002000 r--s 00001000 00:0f 12 anon_inode:bpf-map
Rss:               16388 kB
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0 [stack]
Rss:                  20 kB
`
	got, err := mappedMaps(strings.NewReader(smaps))
	if err != nil || got != (4+16388)<<10 {
		t.Errorf("got %d, %v, want %d", got, err, (4+16388)<<10)
	}
}

func TestReadMemory(t *testing.T) {
	// A test binary has a few MB at least, and no BPF map.
	got, err := readMemory(os.Getpid())
	if err != nil || got.peak < 1<<20 || got.ring != 0 {
		t.Errorf("own memory: %+v, %v", got, err)
	}
}

func TestProgramID(t *testing.T) {
	for text, want := range map[string]uint32{
		"pos:\t0\nflags:\t02000000\nprog_type:\t5\nprog_id:\t117\nrun_cnt:\t3\n": 117,
		"link_type:\tperf\nlink_id:\t9\nprog_tag:\ta1\nprog_id:\t118\n":          118,
		"pos:\t0\nflags:\t0100000\n":                                             0,
	} {
		if got, err := programID(strings.NewReader(text)); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", text, got, err, want)
		}
	}
}

func TestMapInfo(t *testing.T) {
	for text, want := range map[string][2]uint64{
		"pos:\t0\nmap_type:\t1\nkey_size:\t4\nmax_entries:\t16384\nmemlock:\t1311760\nmap_id:\t9\nfrozen:\t0\n": {9, 1311760},
		"map_type:\t27\nmemlock:\t8433992\nmap_id:\t10\n":                                                       {10, 0},
		"map_type:\t4\nmemlock:\t1024\nmap_id:\t11\n":                                                           {11, 0},
		"prog_type:\t5\nprog_id:\t117\nmemlock:\t4096\n":                                                        {0, 0},
		"pos:\t0\nflags:\t0100000\n":                                                                            {0, 0},
	} {
		id, bytes, err := mapInfo(strings.NewReader(text))
		if err != nil || id != want[0] || bytes != want[1] {
			t.Errorf("%q: got %d, %d, %v", text, id, bytes, err)
		}
	}
	if _, _, err := mapInfo(strings.NewReader("map_type:\tx\n")); err == nil {
		t.Error("a map of the type x: no error")
	}
}
