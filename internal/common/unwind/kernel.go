package unwind

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The names in unwind.bpf.h.
const (
	shardsMap    = "unwind_shards"
	pagesMap     = "unwind_pages"
	rulesMap     = "unwind_rules"
	mappingsMap  = "unwind_mappings"
	processesMap = "unwind_processes"

	kernelRules = 16384   // UNWIND_RULES
	shardRows   = 1 << 19 // 1 << UNWIND_SHARD_SHIFT
	blockRows   = 16      // UNWIND_BLOCK
	rowSize     = 4
)

// blockWords is how many 16-bit words a block of rows has: the rows' beginnings, then their
// rules.
const blockWords = 2 * blockRows

// kernelPage is struct unwind_page.
type kernelPage struct{ row, rows uint32 }

// kernelMapping is struct unwind_mapping.
type kernelMapping struct {
	start, end, base uint64
	page, pid        uint32
}

// kernelProcess is struct unwind_process.
type kernelProcess struct {
	Mapping, Mappings uint32
	Changed           uint64
}

// Without says why an Area has no table. The numbers are those that stand for a page in
// unwind.bpf.h.
type Without uint32

// The reasons.
const (
	Pending   Without = 0xffffffff // it will come, perhaps: a walk ends there with NoTable
	None      Without = 0xfffffffe // there is nothing to be had: a walk tries the frame pointer
	Anonymous Without = 0xfffffffd // code that a runtime made: likewise, and trampolines are known
)

// Area is executable memory of a process.
type Area struct {
	Start, End uint64
	Table      *Loaded // nil if it has none
	Without    Without // why it has none
	Address    uint64  // of Start, as the table has it
}

// Loaded is a table that the kernel has.
type Loaded struct {
	start, end uint64 // what the table is of, in its own addresses
	pages      extent
	rows       []shardExtent
	rules      []uint16

	users int // lists of mappings that it is in, and those that hold it
	used  uint64
	gone  bool // it was evicted
}

type shardExtent struct {
	shard *shard
	extent
}

// Kernel fills the maps that unwind.bpf.h walks by. It is safe for concurrent use.
type Kernel struct {
	mu        sync.Mutex
	outer     *ebpf.Map
	processes *ebpf.Map

	shards     []*shard
	mostShards int
	pages      *ebpf.Map
	mappings   []kernelMapping
	rules      []Rule
	mapped     [][]byte

	pageSpace, mappingSpace space

	ruleNumbers map[Rule]uint16
	ruleUsers   []uint32
	freeRules   []uint16
	limboRules  []uint16

	lists   map[uint32]processList
	tables  map[*Loaded]bool
	clock   uint64 // of uses
	counted Counts
}

type processList struct {
	extent
	tables []*Loaded
}

type shard struct {
	rows  *ebpf.Map
	first uint32 // number of its first row
	space space
}

// Counts are what became of what the Kernel was given.
type Counts struct {
	Tables, Rows, Pages int // that are loaded now
	Processes, Mappings int // that are known now
	Memory              int // bytes of all maps
	Evicted             int // tables that made room for others
	RefusedTables       int // tables that there was no room for
	RefusedProcesses    int // times that there was no room for what a process has mapped
	RefusedRules        int // rules that were one too many, so that nothing is known where they hold
}

// ErrNoRoom is that of a table or of a process that there is no room for.
var ErrNoRoom = errors.New("the memory for unwinding is used up")

// MinMemory is the least that Configure takes, in bytes.
const MinMemory = 8 << 20

// Configure makes the maps of an object so large that they take about so many bytes, once all
// is in use; the greater part is taken as it is needed.
func Configure(spec *ebpf.CollectionSpec, memory uint64) error {
	if memory < MinMemory {
		return fmt.Errorf("%d bytes are too few for unwinding: %d at least", memory, MinMemory)
	}
	p := partsOf(memory)
	for name, entries := range map[string]uint32{
		shardsMap: p.shards, pagesMap: p.pages, rulesMap: kernelRules, mappingsMap: p.mappings, processesMap: p.processes,
	} {
		m := spec.Maps[name]
		if m == nil {
			return fmt.Errorf("the object lacks the map %s", name)
		}
		m.MaxEntries = entries
	}
	return nil
}

// parts is how memory is parted among the maps.
type parts struct{ shards, pages, mappings, processes uint32 }

func partsOf(memory uint64) parts {
	const processSize = 64 // in a hash table, about
	memory = min(memory, 64<<30)
	p := parts{
		pages:     uint32(min(memory/8/uint64(unsafe.Sizeof(kernelPage{})), 1<<28)),
		mappings:  uint32(min(memory/16/uint64(unsafe.Sizeof(kernelMapping{})), 1<<22)),
		processes: uint32(min(memory/32/processSize, 1<<17)),
	}
	const shardSize = shardRows * rowSize
	// There are 32 bits for the number of a row.
	p.shards = uint32(min((memory-memory/8-memory/16-memory/32)/shardSize, 1<<32/shardRows))
	return p
}

// OpenKernel takes the maps of a loaded object. find gives a map by its name.
func OpenKernel(find func(name string) *ebpf.Map) (*Kernel, error) {
	k := &Kernel{lists: map[uint32]processList{}, tables: map[*Loaded]bool{}, ruleNumbers: map[Rule]uint16{{}: 0}}
	for _, name := range []string{shardsMap, pagesMap, rulesMap, mappingsMap, processesMap} {
		if find(name) == nil {
			return nil, fmt.Errorf("the map %s is not loaded", name)
		}
	}
	k.outer, k.processes = find(shardsMap), find(processesMap)
	k.mostShards = int(k.outer.MaxEntries())
	var err error
	if k.mappings, err = mapMemory[kernelMapping](k, find(mappingsMap)); err != nil {
		return nil, err
	}
	if k.rules, err = mapMemory[Rule](k, find(rulesMap)); err != nil {
		return nil, err
	}
	k.pages = find(pagesMap)
	k.pageSpace = newSpace(k.pages.MaxEntries())
	k.mappingSpace = newSpace(uint32(len(k.mappings)))
	k.ruleUsers = make([]uint32, len(k.rules))
	for i := len(k.rules) - 1; i > 0; i-- {
		k.freeRules = append(k.freeRules, uint16(i))
	}
	// There always is one, for a grace period to be had by it.
	if err := k.addShard(); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

// mapMemory maps what an array has: T is one of its elements.
func mapMemory[T any](k *Kernel, m *ebpf.Map) ([]T, error) {
	var one T
	if uintptr(m.ValueSize()) != unsafe.Sizeof(one) {
		return nil, fmt.Errorf("an element of the map %s has %d bytes, not %d", m, m.ValueSize(), unsafe.Sizeof(one))
	}
	mem, all, err := mapPart[T](m, 0, m.MaxEntries())
	if err != nil {
		return nil, err
	}
	k.mapped = append(k.mapped, mem)
	return all, nil
}

// fillPart has some of the elements of an array written, and doesn't keep them mapped: what is
// mapped is counted as memory of ours.
func fillPart[T any](m *ebpf.Map, first, n uint32, fill func([]T)) error {
	if n == 0 {
		return nil
	}
	mem, part, err := mapPart[T](m, first, n)
	if err != nil {
		return err
	}
	fill(part)
	return unix.Munmap(mem)
}

// mapPart maps the memory that elements of an array are in. T is one of them.
func mapPart[T any](m *ebpf.Map, first, n uint32) ([]byte, []T, error) {
	page := os.Getpagesize()
	start, end := int(m.ValueSize())*int(first), int(m.ValueSize())*int(first+n)
	before := start % page
	mem, err := unix.Mmap(m.FD(), int64(start-before), end-start+before, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, fmt.Errorf("map the memory of the map %s: %w", m, err)
	}
	return mem, unsafe.Slice((*T)(unsafe.Pointer(&mem[before])), n), nil
}

// Close lets go of the memory. The maps are whose they were.
func (k *Kernel) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, mem := range k.mapped {
		_ = unix.Munmap(mem)
	}
	for _, s := range k.shards {
		_ = s.rows.Close()
	}
	k.mapped, k.shards, k.pages, k.mappings, k.rules = nil, nil, nil, nil, nil
	k.lists, k.tables = nil, nil
}

// Counts gives what became of all so far.
func (k *Kernel) Counts() Counts {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.counted
	c.Tables, c.Processes = len(k.tables), len(k.lists)
	for _, l := range k.lists {
		c.Mappings += int(l.n)
	}
	for t := range k.tables {
		c.Pages += int(t.pages.n)
		for _, e := range t.rows {
			c.Rows += int(e.n)
		}
	}
	c.Memory = len(k.shards)*shardRows*rowSize + int(k.pages.MaxEntries())*int(unsafe.Sizeof(kernelPage{})) +
		len(k.mappings)*int(unsafe.Sizeof(kernelMapping{})) + len(k.rules)*int(unsafe.Sizeof(Rule{}))
	return c
}

// addShard makes room for more rows.
func (k *Kernel) addShard() error {
	if len(k.shards) >= k.mostShards {
		return ErrNoRoom
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "unwind_rows", Type: ebpf.Array, KeySize: 4, ValueSize: blockWords * 2, MaxEntries: shardRows / blockRows,
		Flags: unix.BPF_F_MMAPABLE,
	})
	if err != nil {
		return fmt.Errorf("make a map for unwinding: %w", err)
	}
	if err := k.outer.Put(uint32(len(k.shards)), m); err != nil {
		m.Close()
		return fmt.Errorf("add to the map %s: %w", k.outer, err)
	}
	k.shards = append(k.shards, &shard{rows: m, first: uint32(len(k.shards)) * shardRows, space: newSpace(shardRows)})
	return nil
}

// grace waits until no program that runs now is running any more, so that what it may be
// reading can be used again. The kernel waits for that itself when a map of maps is changed.
func (k *Kernel) grace() error {
	if len(k.pageSpace.limbo)+len(k.mappingSpace.limbo) == 0 {
		return nil
	}
	if err := k.outer.Put(uint32(0), k.shards[0].rows); err != nil {
		return fmt.Errorf("wait for the programs that unwind: %w", err)
	}
	k.pageSpace.settle()
	k.mappingSpace.settle()
	for _, s := range k.shards {
		s.space.settle()
	}
	k.freeRules = append(k.freeRules, k.limboRules...)
	k.limboRules = k.limboRules[:0]
	return nil
}

// Load gives a table to the kernel. It is held there until Release, and as long as something
// has it mapped; then it stays until there is no room for another. The Table is of no use
// to the Kernel afterwards. The error is ErrNoRoom, or a failure.
func (k *Kernel) Load(t *Table) (*Loaded, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := &Loaded{start: t.Start, end: t.Start + uint64(len(t.Pages))*PageSize, users: 1}
	for {
		err := k.place(l, t)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrNoRoom) {
			return nil, err
		}
		if ok, err := k.makeRoom(); err != nil {
			return nil, err
		} else if !ok {
			k.counted.RefusedTables++
			return nil, ErrNoRoom
		}
	}
	numbers := k.numbers(l, t)
	k.tables[l] = true
	// What is in no list is nobody's to read or to evict, as it is held.
	k.mu.Unlock()
	err := k.fill(l, t, numbers)
	k.mu.Lock()
	if err != nil {
		k.remove(l)
		return nil, err
	}
	return l, nil
}

// makeRoom frees what is free by now, or else a table that has no users; it reports whether
// there was any.
func (k *Kernel) makeRoom() (bool, error) {
	if len(k.pageSpace.limbo) == 0 && !k.evict() {
		return false, nil
	}
	return true, k.grace()
}

// evict frees tables that are of no use now, those first that have not been for the longest
// time: at least an eighth of them, as each time takes some milliseconds.
func (k *Kernel) evict() bool {
	var spare []*Loaded
	for t := range k.tables {
		if t.users == 0 {
			spare = append(spare, t)
		}
	}
	slices.SortFunc(spare, func(a, b *Loaded) int { return int(int64(a.used) - int64(b.used)) })
	for _, t := range spare[:(len(spare)+7)/8] {
		k.remove(t)
		k.counted.Evicted++
	}
	return len(spare) > 0
}

// remove frees what a table takes.
func (k *Kernel) remove(l *Loaded) {
	l.gone = true
	delete(k.tables, l)
	k.pageSpace.give(l.pages)
	for _, e := range l.rows {
		e.shard.space.give(e.extent)
	}
	for _, r := range l.rules {
		if k.ruleUsers[r]--; k.ruleUsers[r] == 0 {
			delete(k.ruleNumbers, k.rules[r])
			k.limboRules = append(k.limboRules, r)
		}
	}
}

// place finds room for a table, or takes none.
func (k *Kernel) place(l *Loaded, t *Table) error {
	var ok bool
	if l.pages, ok = k.pageSpace.take(uint32(len(t.Pages))); !ok {
		return ErrNoRoom
	}
	l.rows = l.rows[:0]
	for next := 0; next < len(t.Pages); {
		var rows uint32 // that are left
		for _, p := range t.Pages[next:] {
			rows += p.Count
		}
		if rows == 0 {
			break
		}
		e, err := k.takeRows(rows)
		if err == nil {
			// Each page is to be in one shard.
			n := uint32(0)
			for next < len(t.Pages) && n+t.Pages[next].Count <= e.n {
				n += t.Pages[next].Count
				next++
			}
			e.shard.space.untake(extent{e.at + n, e.n - n})
			if e.n = n; n > 0 {
				l.rows = append(l.rows, e)
				continue
			}
			err = ErrNoRoom // for the next page alone
		}
		for _, e := range l.rows {
			e.shard.space.untake(e.extent)
		}
		k.pageSpace.untake(l.pages)
		return err
	}
	return nil
}

// takeRows gives room for n rows, or for some of them if there is nowhere so much in a row.
func (k *Kernel) takeRows(n uint32) (shardExtent, error) {
	for _, s := range k.shards {
		if e, ok := s.space.take(n); ok {
			return shardExtent{s, e}, nil
		}
	}
	err := k.addShard()
	if err == nil {
		s := k.shards[len(k.shards)-1]
		e, _ := s.space.take(min(n, shardRows))
		return shardExtent{s, e}, nil
	}
	if !errors.Is(err, ErrNoRoom) {
		return shardExtent{}, err
	}
	var best *shard
	for _, s := range k.shards {
		if best == nil || s.space.largest() > best.space.largest() {
			best = s
		}
	}
	most := best.space.largest()
	if most == 0 {
		return shardExtent{}, ErrNoRoom
	}
	e, _ := best.space.take(most)
	return shardExtent{best, e}, nil
}

// numbers gives the kernel's numbers of a table's rules.
func (k *Kernel) numbers(l *Loaded, t *Table) []uint16 {
	numbers := make([]uint16, len(t.Rules))
	for i, rule := range t.Rules {
		n, known := k.ruleNumbers[rule]
		if !known {
			if len(k.freeRules) == 0 {
				k.counted.RefusedRules++
				continue
			}
			n = k.freeRules[len(k.freeRules)-1]
			k.freeRules = k.freeRules[:len(k.freeRules)-1]
			k.rules[n], k.ruleNumbers[rule] = rule, n
		}
		numbers[i] = n
		if n != 0 {
			k.ruleUsers[n]++
			l.rules = append(l.rules, n)
		}
	}
	return numbers
}

// fill writes a table to where it has room.
func (k *Kernel) fill(l *Loaded, t *Table, numbers []uint16) error {
	pages := make([]kernelPage, len(t.Pages))
	next := 0
	for _, e := range l.rows {
		first := e.at / blockRows
		blocks := (e.at+e.n-1)/blockRows + 1 - first
		err := fillPart(e.shard.rows, first, blocks, func(blocks [][blockWords]uint16) {
			row := e.at
			for ; next < len(t.Pages); next++ {
				p := t.Pages[next]
				if row+p.Count > e.at+e.n {
					return
				}
				if p.Count == 0 {
					continue
				}
				pages[next] = kernelPage{e.shard.first + row, p.Count}
				for _, r := range t.Rows[p.First:][:p.Count] {
					b := &blocks[row/blockRows-first]
					b[row%blockRows], b[row%blockRows+blockRows] = r.Low, numbers[r.Rule]
					row++
				}
			}
		})
		if err != nil {
			return err
		}
	}
	return fillPart(k.pages, l.pages.at, l.pages.n, func(to []kernelPage) { copy(to, pages) })
}

// Release lets a table go that Load gave.
func (k *Kernel) Release(l *Loaded) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drop(l)
}

func (k *Kernel) drop(l *Loaded) {
	l.users--
	k.clock++
	l.used = k.clock
}

// Gone reports whether a table was evicted, as nothing had it mapped.
func (k *Kernel) Gone(l *Loaded) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return l.gone
}

// Map tells what a process has mapped by now, in place of what was told before. changed is the
// time of the last change that is in it, in nanoseconds of CLOCK_MONOTONIC; walks are
// marked by it. areas are in the order of their addresses, and don't overlap.
//
// It reports whether all tables were there: in place of one that was evicted meanwhile,
// walks end as if it were Pending. After an error nothing is known of the process; it is
// ErrNoRoom, or a failure.
func (k *Kernel) Map(pid uint32, changed uint64, areas []Area) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	complete := true
	var mappings []kernelMapping
	next := processList{}
	for _, a := range areas {
		if a.Table != nil && a.Table.gone {
			complete, a.Table, a.Without = false, nil, Pending
		}
		if a.Table != nil && !slices.Contains(next.tables, a.Table) {
			next.tables = append(next.tables, a.Table)
		}
		mappings = a.appendTo(mappings, pid)
	}
	var ok bool
	if next.extent, ok = k.mappingSpace.take(uint32(len(mappings))); !ok {
		if err := k.grace(); err != nil {
			return false, err
		}
		next.extent, ok = k.mappingSpace.take(uint32(len(mappings)))
	}
	err := ErrNoRoom
	if ok && len(mappings) < 1<<17 {
		copy(k.mappings[next.at:], mappings)
		err = k.processes.Put(pid, kernelProcess{next.at, next.n, changed})
		if errors.Is(err, unix.E2BIG) {
			err = ErrNoRoom
		}
	}
	if err != nil {
		if ok {
			k.mappingSpace.untake(next.extent)
		}
		if errors.Is(err, ErrNoRoom) {
			k.counted.RefusedProcesses++
		}
		return false, errors.Join(err, k.forget(pid))
	}
	for _, t := range next.tables {
		t.users++
	}
	k.free(pid)
	k.lists[pid] = next
	return complete, nil
}

// free lets go of the list of a process that is not in use any more.
func (k *Kernel) free(pid uint32) {
	l, ok := k.lists[pid]
	if !ok {
		return
	}
	delete(k.lists, pid)
	k.mappingSpace.give(l.extent)
	for _, t := range l.tables {
		k.drop(t)
	}
}

// Forget is for a process that has ended.
func (k *Kernel) Forget(pid uint32) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.forget(pid)
}

func (k *Kernel) forget(pid uint32) error {
	if _, ok := k.lists[pid]; !ok {
		return nil
	}
	if err := k.processes.Delete(pid); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("forget process %d: %w", pid, err)
	}
	k.free(pid)
	return nil
}

// appendTo adds what an area is to the kernel: what its table is not of has none.
func (a Area) appendTo(to []kernelMapping, pid uint32) []kernelMapping {
	if a.Start >= a.End {
		return to
	}
	t := a.Table
	if t == nil {
		return append(to, kernelMapping{a.Start, a.End, 0, uint32(a.Without), pid})
	}
	none := Area{Without: None}
	// Addresses in the process, which wrap around where the file's are the higher ones.
	start, end := a.Start+t.start-a.Address, a.Start+t.end-a.Address
	first, last := a.Start, a.End
	if a.Address < t.start {
		first = min(start, a.End)
	}
	if a.Address+(a.End-a.Start) > t.end {
		last = max(min(end, a.End), first)
		if a.Address >= t.end {
			first, last = a.End, a.End
		}
	}
	none.Start, none.End = a.Start, first
	to = none.appendTo(to, pid)
	if first < last {
		to = append(to, kernelMapping{first, last, start, t.pages.at, pid})
	}
	none.Start, none.End = last, a.End
	return none.appendTo(to, pid)
}
