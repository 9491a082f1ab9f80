package main

import (
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// opBits are the lowest bits of a request's flags, which tell its operation.
const opBits = 8

// operations are the names of operations and flags that the running kernel has: their
// numbers are not the same everywhere (zones' were changed in 6.8).
type operations struct {
	ops   map[uint32]string // "WRITE_ZEROES"
	flags map[int]string    // by bit: "SYNC"
}

// readOperations reads the names from the kernel's types.
func readOperations(types *btf.Spec) operations {
	o := operations{map[uint32]string{}, map[int]string{}}
	for _, name := range []string{"req_op", "req_opf"} { // the latter up to 5.19
		for _, v := range enum(types, name) {
			if op, ok := strings.CutPrefix(v.Name, "REQ_OP_"); ok && op != "LAST" {
				o.ops[uint32(v.Value)] = op
			}
		}
	}
	for _, v := range enum(types, "req_flag_bits") {
		if flag, ok := strings.CutPrefix(v.Name, "__REQ_"); ok && flag != "NR_BITS" && o.flags[int(v.Value)] == "" {
			o.flags[int(v.Value)] = flag
		}
	}
	return o
}

// flushSequence is the bit in a request's rq_flags that says that flushes come before or
// behind its data: bit 4, where the flags are no enum (up to 6.10).
func flushSequence(types *btf.Spec) uint32 {
	for _, v := range enum(types, "rqf_flags") {
		if v.Name == "__RQF_FLUSH_SEQ" {
			return 1 << v.Value
		}
	}
	return 1 << 4
}

// enum gives the values of an enum, or none if the kernel has no such.
func enum(types *btf.Spec, name string) []btf.EnumValue {
	var e *btf.Enum
	if types.TypeByName(name, &e) != nil {
		return nil
	}
	return e.Values
}

// BCC's words, where they are not the kernel's in another spelling, and the order in
// which it puts flags: the first stands next to the operation.
var (
	bccOps   = map[string]string{"WRITE_ZEROES": "WriteZeros"}
	bccFlags = []struct{ name, word string }{
		{"SYNC", "Sync"}, {"META", "Metadata"}, {"FUA", "ForcedUnitAccess"}, {"PRIO", "Priority"}, {"NOMERGE", "NoMerge"},
		{"IDLE", "Idle"}, {"RAHEAD", "ReadAhead"}, {"BACKGROUND", "Background"}, {"NOWAIT", "NoWait"},
		{"PREFLUSH", "PreFlush"}, // which BCC leaves out
	}
)

// uninteresting are flags that tell how the kernel handles a request, and not what it
// is: they come with ReadAhead, or with any from a cache of bios.
var uninteresting = []string{"FAILFAST_DEV", "FAILFAST_TRANSPORT", "FAILFAST_DRIVER", "ALLOC_CACHE"}

// bits are those of some flags.
func (o operations) bits(names ...string) uint32 {
	bits := uint32(0)
	for bit, name := range o.flags {
		if slices.Contains(names, name) {
			bits |= 1 << bit
		}
	}
	return bits
}

// mask has the bits of a request's flags that are told apart.
func (o operations) mask() uint32 {
	return ^o.bits(uninteresting...)
}

// text names an operation and its flags as BCC does: "Sync-Write".
func (o operations) text(opFlags uint32) string {
	op := o.op(opFlags)
	text := bccOps[op]
	if text == "" {
		text = camelCase(op)
	}
	set := map[string]bool{}
	names := o.set(opFlags)
	for _, name := range names {
		set[name] = true
	}
	for _, f := range bccFlags {
		if set[f.name] {
			text = f.word + "-" + text
			delete(set, f.name)
		}
	}
	for _, name := range names {
		if set[name] {
			text = camelCase(name) + "-" + text
		}
	}
	return text
}

// op names the operation, as the kernel does: "WRITE_ZEROES".
func (o operations) op(opFlags uint32) string {
	if name := o.ops[opFlags&(1<<opBits-1)]; name != "" {
		return name
	}
	return "UNKNOWN"
}

// set gives the names of the flags, by bit. A bit that has none is left out.
func (o operations) set(opFlags uint32) []string {
	var names []string
	for bit := opBits; bit < 32; bit++ {
		if name := o.flags[bit]; name != "" && opFlags&(1<<bit) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// camelCase makes FailfastDev of FAILFAST_DEV.
func camelCase(name string) string {
	var b strings.Builder
	for word := range strings.SplitSeq(name, "_") {
		if word != "" {
			b.WriteString(word[:1] + strings.ToLower(word[1:]))
		}
	}
	return b.String()
}
