package events

import "testing"

func TestRecent(t *testing.T) {
	var r Recent
	for round := range uint64(3) {
		for i := range uint64(2 * recentIDs) {
			id := round*10*recentIDs + i
			if r.Again(id) {
				t.Fatalf("%d has never come before", id)
			}
			if !r.Again(id) {
				t.Fatalf("%d has come just now", id)
			}
			if i >= recentIDs-1 && !r.Again(id-recentIDs+1) {
				t.Fatalf("%d is forgotten after %d others", id-recentIDs+1, recentIDs-1)
			}
			if len(r.known) > recentIDs || len(r.order) > recentIDs {
				t.Fatalf("%d ids are remembered", len(r.known))
			}
		}
	}
	if r.Again(0) {
		t.Error("one of long ago is still remembered")
	}
}
