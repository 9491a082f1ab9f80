package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBucketCounts(t *testing.T) {
	// Of the tools of all sides.
	const output = `Tracing block device I/O... Hit Ctrl-C to end.
     usecs               : count     distribution
         0 -> 1          : 0        |                                        |
        16 -> 31         : 12       |****************************************|
disk = vda	flags = Read
        32 -> 63         : 3        |*******                                 |
     usecs               : queue                           device
@usecs:
[16, 32)             100 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|
[1K, 2K)               7 |                                                    |
[128K, ...)            1 |                                                    |
Lost 5 events`
	c := countedRows{line: bucketCount}
	if err := c.count(strings.NewReader(output)); err != nil {
		t.Fatal(err)
	}
	if c.events != 123 || !c.saidLost {
		t.Errorf("%d requests, want 123; said lost: %t", c.events, c.saidLost)
	}
}

func TestDiskRequests(t *testing.T) {
	dir := t.TempDir()
	for name, stat := range map[string]string{
		"vda/mq": "    1 2 3 4    10 6 7 8 7 10 11      100 13 14 15    1000 17\n", "sda/mq": "10000 0 0 0 0 0 0 0 0 0 0\n", "zram0/queue": "5 5 5 5 5\n",
	} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Dir(name), "stat"), []byte(stat), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := diskRequests(dir, completedFields...); err != nil || n != 11111 {
		t.Errorf("%d were completed, %v", n, err)
	}
	if n, err := diskRequests(dir, underWayField); err != nil || n != 7 {
		t.Errorf("%d are under way, %v", n, err)
	}
	if _, err := addFields("1 2 3 4 x", completedFields); err == nil {
		t.Error("no error")
	}
}
