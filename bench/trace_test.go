package main

import (
	"slices"
	"testing"
)

func TestMergeCopies(t *testing.T) {
	got := mergeCopies([]programTime{{"b", 100, 1000}, {"a", 5, 50}, {"b", 102, 20}, {"c", 0, 0}, {"b", 99, 10}})
	want := []programTime{{"a", 5, 50}, {"b", 102, 1030}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
}
