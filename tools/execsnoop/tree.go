package main

// A process is told from a later one of the same pid by when it began.
type process struct {
	pid   uint32
	start uint64 // in nanoseconds since boot
}

// maxDepths bounds the processes that --tree remembers, to twice that.
const maxDepths = 1 << 16

// depths is how far processes that ran something stand below the first of them.
type depths struct {
	recent, older map[process]int // what is asked for becomes recent again
}

// of tells how far below the first process seen an exec stands: one below the
// nearest of its parents that ran something.
func (d *depths) of(s *started) int {
	depth := 0
	own := process{s.Pid, s.StartNs}
	if known, ok := d.get(own); ok { // it runs another program now
		depth = known
	} else {
		for i := range s.ancestors {
			if above, ok := d.get(process{s.ancestors[i].Pid, s.ancestors[i].StartNs}); ok {
				depth = above + 1
				break
			}
		}
	}
	if s.Ret >= 0 {
		d.put(own, depth)
	}
	return depth
}

func (d *depths) get(p process) (depth int, ok bool) {
	if depth, ok = d.recent[p]; ok {
		return depth, true
	}
	if depth, ok = d.older[p]; ok {
		d.put(p, depth)
	}
	return depth, ok
}

// put remembers a process. If there are too many, those are forgotten that were
// not asked for since as many others came.
func (d *depths) put(p process, depth int) {
	if d.recent == nil || len(d.recent) >= maxDepths {
		d.recent, d.older = map[process]int{}, d.recent
	}
	d.recent[p] = depth
}

// forget drops a process that has ended.
func (d *depths) forget(p process) {
	delete(d.recent, p)
	delete(d.older, p)
}
