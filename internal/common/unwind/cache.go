package unwind

import (
	"container/list"
	"sync"
)

// A Cache keeps the tables that were used last, as many as there is memory for. It is safe
// for concurrent use.
type Cache struct {
	mu      sync.Mutex
	most    int
	bytes   int
	entries map[any]*cached
	used    *list.List // of *cached, that used last in front
}

type cached struct {
	key   any
	made  chan struct{} // closed once there is a table, or an error
	table *Table
	err   error
	bytes int
	used  *list.Element // nil while it is being made
}

// entrySize is about what an entry takes besides its table, in bytes.
const entrySize = 256

// NewCache makes a cache for tables of so many bytes in all.
func NewCache(bytes int) *Cache {
	return &Cache{most: bytes, entries: map[any]*cached{}, used: list.New()}
}

// Table gives the table of a key, such as a build id, which says that files are the same. If
// there is none, it is made: once, even if several ask for it at a time. That there is none
// to be had is kept, too.
func (c *Cache) Table(key any, build func() (*Table, error)) (*Table, error) {
	c.mu.Lock()
	e := c.entries[key]
	if e != nil {
		if e.used != nil {
			c.used.MoveToFront(e.used)
		}
		c.mu.Unlock()
		<-e.made
		return e.table, e.err
	}
	e = &cached{key: key, made: make(chan struct{})}
	c.entries[key] = e
	c.mu.Unlock()

	e.table, e.err = build()
	e.bytes = entrySize
	if e.table != nil {
		e.bytes += e.table.Bytes()
	}
	close(e.made)

	c.mu.Lock()
	defer c.mu.Unlock()
	e.used = c.used.PushFront(e)
	c.bytes += e.bytes
	for c.bytes > c.most {
		last := c.used.Remove(c.used.Back()).(*cached)
		delete(c.entries, last.key)
		c.bytes -= last.bytes
	}
	return e.table, e.err
}

// Bytes is how much memory the tables take.
func (c *Cache) Bytes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}
