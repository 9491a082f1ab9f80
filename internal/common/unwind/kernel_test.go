package unwind

import (
	"slices"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
)

// What a table is not of has none.
func TestAreaParts(t *testing.T) {
	table := &Loaded{start: 0x3000, end: 0x6000, pages: extent{77, 3}}
	whole := func(base uint64) kernelMapping { return kernelMapping{0, 0, base, 77, 5} }
	none := func(start, end uint64) kernelMapping { return kernelMapping{start, end, 0, uint32(None), 5} }
	in := func(start, end uint64, m kernelMapping) kernelMapping {
		m.start, m.end = start, end
		return m
	}
	for name, test := range map[string]struct {
		area Area
		want []kernelMapping
	}{
		"all of it":      {Area{0x10000, 0x13000, table, 0, 0x3000}, []kernelMapping{in(0x10000, 0x13000, whole(0x10000))}},
		"a part":         {Area{0x10000, 0x11000, table, 0, 0x4000}, []kernelMapping{in(0x10000, 0x11000, whole(0xf000))}},
		"more before":    {Area{0x10000, 0x14000, table, 0, 0x2000}, []kernelMapping{none(0x10000, 0x11000), in(0x11000, 0x14000, whole(0x11000))}},
		"more behind":    {Area{0x10000, 0x14000, table, 0, 0x5000}, []kernelMapping{in(0x10000, 0x11000, whole(0xe000)), none(0x11000, 0x14000)}},
		"more on both":   {Area{0x10000, 0x16000, table, 0, 0x1000}, []kernelMapping{none(0x10000, 0x12000), in(0x12000, 0x15000, whole(0x12000)), none(0x15000, 0x16000)}},
		"all before":     {Area{0x10000, 0x12000, table, 0, 0x1000}, []kernelMapping{none(0x10000, 0x12000)}},
		"all behind":     {Area{0x10000, 0x12000, table, 0, 0x6000}, []kernelMapping{none(0x10000, 0x12000)}},
		"below the file": {Area{0x1000, 0x2000, table, 0, 0x3000}, []kernelMapping{in(0x1000, 0x2000, whole(0x1000))}},
		"it wraps":       {Area{0x1000, 0x2000, table, 0, 0x5000}, []kernelMapping{in(0x1000, 0x2000, whole(^uint64(0xfff)))}},
		"no table":       {Area{0x1000, 0x2000, nil, Pending, 0}, []kernelMapping{{0x1000, 0x2000, 0, uint32(Pending), 5}}},
		"nothing":        {Area{0x1000, 0x1000, table, 0, 0x3000}, nil},
	} {
		if got := test.area.appendTo(nil, 5); !slices.Equal(got, test.want) {
			t.Errorf("%s: %x, want %x", name, got, test.want)
		}
	}
}

// What the maps take is no more than what they may.
func TestConfigure(t *testing.T) {
	for _, memory := range []uint64{MinMemory, 9_999_999, 64 << 20, 1 << 30, 4 << 30} {
		spec := mapsSpec()
		if err := Configure(spec, memory); err != nil {
			t.Fatal(err)
		}
		size := func(name string) uint64 {
			return uint64(spec.Maps[name].ValueSize) * uint64(spec.Maps[name].MaxEntries)
		}
		all := uint64(spec.Maps[shardsMap].MaxEntries)*shardRows*rowSize + size(pagesMap) + size(mappingsMap) + uint64(spec.Maps[processesMap].MaxEntries)*64
		if all > memory || all < memory*3/4 {
			t.Errorf("of %d bytes %d are used", memory, all)
		}
		for name, m := range spec.Maps {
			if m.MaxEntries < 2 {
				t.Errorf("%d bytes: %s has %d entries", memory, name, m.MaxEntries)
			}
		}
	}
	if err := Configure(mapsSpec(), MinMemory-1); err == nil {
		t.Error("too little is taken")
	}
	if err := Configure(&ebpf.CollectionSpec{}, MinMemory); err == nil {
		t.Error("an object without the maps is taken")
	}
}

// mapsSpec gives the maps of unwind.bpf.h.
func mapsSpec() *ebpf.CollectionSpec {
	const mmapable = 1 << 10 // BPF_F_MMAPABLE
	array := func(name string, size uintptr) *ebpf.MapSpec {
		return &ebpf.MapSpec{Name: name, Type: ebpf.Array, KeySize: 4, ValueSize: uint32(size), MaxEntries: 1, Flags: mmapable}
	}
	rows := array("unwind_rows", blockWords*2)
	rows.MaxEntries = shardRows / blockRows
	return &ebpf.CollectionSpec{Maps: map[string]*ebpf.MapSpec{
		shardsMap:    {Name: shardsMap, Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1, InnerMap: rows},
		pagesMap:     array(pagesMap, unsafe.Sizeof(kernelPage{})),
		rulesMap:     array(rulesMap, unsafe.Sizeof(Rule{})),
		mappingsMap:  array(mappingsMap, unsafe.Sizeof(kernelMapping{})),
		processesMap: {Name: processesMap, Type: ebpf.Hash, KeySize: 4, ValueSize: uint32(unsafe.Sizeof(kernelProcess{})), MaxEntries: 1},
	}}
}
