package main

import "container/list"

// bounded is a map that keeps a number of entries at most: to make room for
// another, the one that was put there first goes.
type bounded[K comparable, V any] struct {
	limit   int
	entries map[K]*list.Element
	order   list.List // of entry[K, V], the oldest first
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

func newBounded[K comparable, V any](limit int) *bounded[K, V] {
	return &bounded[K, V]{limit: limit, entries: map[K]*list.Element{}}
}

func (b *bounded[K, V]) get(key K) (value V, ok bool) {
	e := b.entries[key]
	if e == nil {
		return value, false
	}
	return e.Value.(*entry[K, V]).value, true
}

// put makes key the newest entry.
func (b *bounded[K, V]) put(key K, value V) {
	if e := b.entries[key]; e != nil {
		e.Value.(*entry[K, V]).value = value
		b.order.MoveToBack(e)
		return
	}
	if len(b.entries) == b.limit {
		b.remove(b.oldest())
	}
	b.entries[key] = b.order.PushBack(&entry[K, V]{key, value})
}

// oldest gives the key that would go first. There must be one.
func (b *bounded[K, V]) oldest() K { return b.order.Front().Value.(*entry[K, V]).key }

func (b *bounded[K, V]) remove(key K) {
	if e := b.entries[key]; e != nil {
		b.order.Remove(e)
		delete(b.entries, key)
	}
}

func (b *bounded[K, V]) len() int { return len(b.entries) }
