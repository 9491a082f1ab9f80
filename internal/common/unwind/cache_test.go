package unwind

import (
	"errors"
	"sync"
	"testing"
)

// rowsOf makes a table that takes about so many bytes.
func rowsOf(bytes int) *Table { return &Table{Rows: make([]Row, bytes/4)} }

func TestCache(t *testing.T) {
	c := NewCache(100_000)
	made := map[string]int{}
	get := func(key string, bytes int) *Table {
		t.Helper()
		table, err := c.Table(key, func() (*Table, error) {
			made[key]++
			return rowsOf(bytes), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return table
	}
	a := get("a", 40_000)
	get("b", 40_000)
	if get("a", 0) != a || made["a"] != 1 {
		t.Error("a table that there was has been made again")
	}
	if used := c.Bytes(); used < 80_000 || used > 82_000 {
		t.Errorf("%d bytes", used)
	}
	get("c", 40_000) // b, which was not used for longest, makes room
	get("a", 0)
	get("b", 40_000) // then c does
	get("c", 40_000)
	if made["a"] != 1 || made["b"] != 2 || made["c"] != 2 {
		t.Errorf("they were made %v times", made)
	}
	get("huge", 200_000)
	if used := c.Bytes(); used > 100_000 {
		t.Errorf("%d bytes", used)
	}
	get("huge", 200_000)
	if made["huge"] != 2 {
		t.Errorf("a table that there is no room for was kept")
	}
}

// That a file has no table is found out once.
func TestCacheOfErrors(t *testing.T) {
	c := NewCache(1000)
	calls := 0
	for range 23 {
		if _, err := c.Table(1, func() (*Table, error) { calls++; return nil, ErrNoFrames }); !errors.Is(err, ErrNoFrames) {
			t.Fatalf("error %v", err)
		}
	}
	if calls != 1 {
		t.Errorf("it was found out %d times", calls)
	}
}

// Of those that ask at a time, one makes the table, and the others wait for it.
func TestCacheAtATime(t *testing.T) {
	c := NewCache(1 << 20)
	begun, go1 := make(chan bool), make(chan bool)
	var all sync.WaitGroup
	tables := make([]*Table, 23)
	for i := range tables {
		all.Go(func() {
			tables[i], _ = c.Table("key", func() (*Table, error) {
				begun <- true
				<-go1
				return rowsOf(1000), nil
			})
		})
	}
	<-begun
	close(go1) // Were there a second, it would wait for somebody to receive that it has begun.
	all.Wait()
	for _, table := range tables {
		if table == nil || table != tables[0] {
			t.Fatal("there is more than one table")
		}
	}
}
