package unwind

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

func TestMain(m *testing.M) { livetest.Main(m, nil) }

// openTestKernel makes the maps and fills them.
func openTestKernel(t *testing.T, memory uint64) *Kernel {
	t.Helper()
	livetest.Need(t)
	_ = rlimit.RemoveMemlock() // up to 5.10
	spec := mapsSpec()
	if err := Configure(spec, memory); err != nil {
		t.Fatal(err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	k, err := OpenKernel(func(name string) *ebpf.Map { return coll.Maps[name] })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

// at gives what the kernel would find for an address of a process, as unwind.bpf.h does: the
// maps are asked, and no memory of our own.
func (k *Kernel) at(t *testing.T, pid uint32, addr uint64) (rule Rule, page uint32, ok bool) {
	t.Helper()
	var p kernelProcess
	if err := k.processes.Lookup(pid, &p); err != nil {
		return Rule{}, 0, false
	}
	for _, m := range k.mappings[p.Mapping:][:p.Mappings] {
		if m.start > addr || addr >= m.end {
			continue
		}
		if m.pid != pid {
			t.Fatalf("a mapping of process %d is in the list of %d", m.pid, pid)
		}
		if m.page >= uint32(Anonymous) {
			return Rule{}, m.page, true
		}
		offset := addr - m.base
		var page [2]uint32 // row, rows
		if err := k.pages.Lookup(m.page+uint32(offset/PageSize), &page); err != nil {
			t.Fatal(err)
		}
		if page[1] == 0 {
			return Rule{}, 0, true
		}
		var block [blockWords]uint16
		number, have := uint16(0), ^uint32(0)
		for row := page[0] % shardRows; row < page[0]%shardRows+page[1]; row++ {
			if row/blockRows != have {
				have = row / blockRows
				if err := k.shards[page[0]/shardRows].rows.Lookup(have, &block); err != nil {
					t.Fatal(err)
				}
			}
			if block[row%blockRows] <= uint16(offset%PageSize) {
				number = block[row%blockRows+blockRows]
			}
		}
		return k.rules[number], 0, true
	}
	return Rule{}, 0, false
}

// randomTable makes a table of so many pages, of about so many rows each.
func randomTable(rng *rand.Rand, pages, rows, rules int) *Table {
	t := &Table{Start: rng.Uint64N(1<<20) * PageSize, Rules: []Rule{{}}}
	first := rng.Int32N(1 << 20)
	for i := range rules {
		t.Rules = append(t.Rules, Rule{Cfa: SP, Offset: first + int32(i), Ra: AtCFA, RaOffset: -1})
	}
	for range pages {
		p := Page{First: uint32(len(t.Rows))}
		if rng.IntN(8) > 0 {
			step := max(PageSize/rows, 1)
			for low := 0; low < PageSize; low += 1 + rng.IntN(2*step-1) {
				t.Rows = append(t.Rows, Row{uint16(low), uint16(rng.IntN(len(t.Rules)))})
			}
		}
		p.Count = uint32(len(t.Rows)) - p.First
		t.Pages = append(t.Pages, p)
	}
	return t
}

// loadedTable is a table with where it is mapped.
type loadedTable struct {
	*Table
	loaded *Loaded
	pid    uint32
	at     uint64
}

func (l *loadedTable) area() Area {
	return Area{Start: l.at, End: l.at + uint64(len(l.Pages))*PageSize, Table: l.loaded, Address: l.Start}
}

// check compares some of a table with what the kernel has of it.
func (l *loadedTable) check(t *testing.T, k *Kernel, rng *rand.Rand) {
	t.Helper()
	for range 50 {
		offset := rng.Uint64N(uint64(len(l.Pages)) * PageSize)
		rule, page, ok := k.at(t, l.pid, l.at+offset)
		if want := l.Find(l.Start + offset); !ok || page != 0 || rule != want {
			t.Fatalf("process %d, at %#x: %+v (%#x, %v), want %+v", l.pid, offset, rule, page, ok, want)
		}
	}
}

// Whatever is loaded, mapped, forgotten and evicted: what is there is right, and all takes no
// more memory than it may.
func TestKernelTables(t *testing.T) {
	livetest.NeedOnce(t)
	const memory = 16 << 20
	k := openTestKernel(t, memory)
	rng := rand.New(rand.NewPCG(3, 4))
	var all []*loadedTable
	rounds := 120
	if livetest.Guest() {
		rounds = 40
	}
	refused, pid := 0, uint32(100)
	for range rounds {
		pages, rows := 1+rng.IntN(1000), 1+rng.IntN(300)
		if rng.IntN(6) == 0 {
			pages, rows = 5000, 200 // more than a shard
		}
		table := randomTable(rng, pages, rows, 1+rng.IntN(50))
		loaded, err := k.Load(table)
		for err != nil && len(all) > 0 {
			if !errors.Is(err, ErrNoRoom) {
				t.Fatal(err)
			}
			refused++
			i := rng.IntN(len(all))
			if err := k.Forget(all[i].pid); err != nil {
				t.Fatal(err)
			}
			all[i] = all[len(all)-1]
			all = all[:len(all)-1]
			loaded, err = k.Load(table)
		}
		if err != nil {
			t.Fatal(err)
		}
		pid++
		l := &loadedTable{table, loaded, pid, rng.Uint64N(1<<30) * PageSize}
		if complete, err := k.Map(pid, 1, []Area{l.area()}); err != nil || !complete {
			t.Fatal(complete, err)
		}
		k.Release(loaded)
		all = append(all, l)
		for _, l := range all {
			if k.Gone(l.loaded) {
				t.Fatal("a table that is mapped was evicted")
			}
			l.check(t, k, rng)
		}
		if c := k.Counts(); c.Memory > memory {
			t.Fatalf("%d bytes are used, of %d", c.Memory, memory)
		}
	}
	c := k.Counts()
	t.Logf("%+v", c)
	if refused == 0 || c.Evicted == 0 || c.RefusedTables != refused || c.RefusedRules != 0 {
		t.Errorf("%d were refused: %+v", refused, c)
	}
	for _, l := range all {
		if err := k.Forget(l.pid); err != nil {
			t.Fatal(err)
		}
	}
	// All is free again, in one piece.
	for k.evict() {
	}
	if err := k.grace(); err != nil {
		t.Fatal(err)
	}
	if c := k.Counts(); c.Tables != 0 || len(k.freeRules) != kernelRules-1 || len(k.ruleNumbers) != 1 ||
		len(k.pageSpace.free) != 1 || len(k.mappingSpace.free) != 1 {
		t.Errorf("%+v, %d rules, %v, %v", c, len(k.freeRules), k.pageSpace, k.mappingSpace)
	}
	for _, s := range k.shards {
		if len(s.space.free) != 1 || s.space.free[0].n != shardRows {
			t.Errorf("%v", s.space)
		}
	}
}

// A process's list is replaced as often as it changes, and there is an end to what lists take.
func TestKernelMappings(t *testing.T) {
	livetest.NeedOnce(t)
	k := openTestKernel(t, MinMemory)
	rng := rand.New(rand.NewPCG(5, 6))
	table := randomTable(rng, 30, 20, 5)
	loaded, err := k.Load(table)
	if err != nil {
		t.Fatal(err)
	}
	l := &loadedTable{table, loaded, 7, 0}
	room := len(k.mappings)
	for i := range 300 {
		// Each list is a twentieth of all: it is only through what is freed that there is room.
		var areas []Area
		for j := range room / 20 {
			areas = append(areas, Area{Start: uint64(j) << 20, End: uint64(j)<<20 + 0x1000, Without: None})
		}
		l.at = uint64(len(areas))<<20 + uint64(i)*PageSize
		if complete, err := k.Map(7, uint64(i), append(areas, l.area())); err != nil || !complete {
			t.Fatal(complete, err)
		}
		l.check(t, k, rng)
		if _, page, ok := k.at(t, 7, 5<<20); !ok || page != uint32(None) {
			t.Fatalf("%#x, %v", page, ok)
		}
	}
	// Now all stays.
	n := 0
	for pid := uint32(1000); ; pid++ {
		var areas []Area
		for j := range room / 10 {
			areas = append(areas, Area{Start: uint64(j) << 20, End: uint64(j)<<20 + 0x1000, Without: None})
		}
		if _, err := k.Map(pid, 1, areas); err != nil {
			if !errors.Is(err, ErrNoRoom) {
				t.Fatal(err)
			}
			if _, _, ok := k.at(t, pid, 0); ok {
				t.Error("what was refused is there")
			}
			break
		}
		n++
	}
	if n < 8 || n > 10 || k.Counts().RefusedProcesses != 1 {
		t.Errorf("%d lists of a tenth: %+v", n, k.Counts())
	}
	l.check(t, k, rng)
	// As many processes as there may be, and one more.
	for pid := uint32(1000); pid < 1010; pid++ {
		if err := k.Forget(pid); err != nil {
			t.Fatal(err)
		}
	}
	var full error
	most := k.processes.MaxEntries()
	for pid := uint32(2000); pid < 2000+2*most && full == nil; pid++ {
		_, full = k.Map(pid, 1, []Area{{Start: 0x1000, End: 0x2000, Without: Anonymous}})
	}
	if !errors.Is(full, ErrNoRoom) || k.Counts().Processes < int(most)/2 {
		t.Errorf("%v: %+v", full, k.Counts())
	}
	// What is evicted is told of.
	if err := k.Forget(7); err != nil {
		t.Fatal(err)
	}
	k.Release(loaded)
	if !k.evict() || !k.Gone(loaded) {
		t.Fatal("nothing was evicted")
	}
	if complete, err := k.Map(2000, 9, []Area{l.area()}); complete || err != nil {
		t.Errorf("%v, %v", complete, err)
	}
	if _, page, ok := k.at(t, 2000, l.at); !ok || page != uint32(Pending) {
		t.Errorf("%#x, %v", page, ok)
	}
}

// More rules than there is room for are counted, and nothing is known where they hold.
func TestKernelRules(t *testing.T) {
	livetest.NeedOnce(t)
	k := openTestKernel(t, MinMemory)
	table := &Table{Start: PageSize, Rules: []Rule{{}}}
	for i := range kernelRules + 22 {
		if i%1000 == 0 {
			table.Pages = append(table.Pages, Page{First: uint32(len(table.Rows))})
		}
		table.Rules = append(table.Rules, Rule{Cfa: FP, Offset: int32(i)})
		table.Rows = append(table.Rows, Row{uint16(i % 1000), uint16(i + 1)})
		table.Pages[len(table.Pages)-1].Count++
	}
	loaded, err := k.Load(table)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Map(5, 1, []Area{{Start: PageSize, End: PageSize * uint64(1+len(table.Pages)), Table: loaded, Address: PageSize}}); err != nil {
		t.Fatal(err)
	}
	known, unknown := 0, 0
	for i := range kernelRules + 22 {
		rule, _, ok := k.at(t, 5, PageSize+uint64(i/1000*PageSize+i%1000))
		switch {
		case !ok || rule != (Rule{}) && rule.Offset != int32(i):
			t.Fatalf("%d: %+v, %v", i, rule, ok)
		case rule == Rule{}:
			unknown++
		default:
			known++
		}
	}
	if known != kernelRules-1 || unknown != 23 || k.Counts().RefusedRules != 23 {
		t.Errorf("%d, %d: %+v", known, unknown, k.Counts())
	}
}
