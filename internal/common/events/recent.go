package events

// recentIDs is how many ids Recent remembers.
const recentIDs = 8192

// Recent remembers the last 8,192 events by an id, so that one which several
// programs reported is shown once: where a program has spares, each of them may
// report an event, right after each other.
type Recent struct {
	known map[uint64]struct{}
	order []uint64
	next  int // in order
}

// Again reports whether this id has come before, and remembers it.
func (r *Recent) Again(id uint64) bool {
	if _, ok := r.known[id]; ok {
		return true
	}
	if r.known == nil {
		r.known = make(map[uint64]struct{}, recentIDs)
		r.order = make([]uint64, 0, recentIDs)
	}
	if len(r.order) < recentIDs {
		r.order = append(r.order, id)
	} else {
		delete(r.known, r.order[r.next])
		r.order[r.next] = id
		r.next = (r.next + 1) % recentIDs
	}
	r.known[id] = struct{}{}
	return false
}
