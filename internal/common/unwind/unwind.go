// Package unwind walks user stacks by the tables that compilers leave in programs for
// exceptions (.eh_frame), so that no frame pointers are needed. A Table is made of a file;
// the same rules are walked here, on a copy of a stack, and in the kernel by
// unwind.bpf.h.
package unwind

// A Rule tells how to get from a frame to that of its caller. Its fields are those of
// struct unwind_rule in unwind.bpf.h.
//
// Only the instruction pointer, the stack pointer and the frame pointer are followed (on
// arm64 also the link register), as all but a few hand-written functions need no more.
type Rule struct {
	Cfa   CFA   // where the frame's base is
	Fp    Saved // where the caller's frame pointer is
	Ra    Saved // where the return address is
	Flags Flags
	// Offset is added to the register that Cfa names, in bytes. With a Deref, what
	// stands there is read and Add is added to it.
	Offset, Add int32
	// FpOffset and RaOffset are of what is saved, from the frame's base, in units of 8
	// bytes.
	FpOffset, RaOffset int16
}

// CFA is how the base of a frame is found: DWARF's canonical frame address, which is the
// stack pointer of the caller.
type CFA uint8

// The ways. The zero Rule is that of code of which nothing is known.
const (
	Unknown CFA = iota // no rule: a gap between functions, or one that is beyond what a Rule can say
	End                // the root: nobody called this
	SP                 // stack pointer + Offset
	FP                 // frame pointer + Offset
	PLT                // stack pointer + Offset, and 8 more from Add of each 16 bytes of code on
	SPDeref            // *(stack pointer + Offset) + Add
	FPDeref            // *(frame pointer + Offset) + Add
	Signal             // a signal's frame: all registers are in the context at stack pointer + Offset
)

// Saved is where a caller's register is.
type Saved uint8

// The places.
const (
	Same  Saved = iota // still in the register; for the return address: in the link register
	AtCFA              // at the frame's base plus the offset
	Lost               // nowhere
	AtFP               // at this frame's frame pointer plus the offset, where the stack was aligned
)

// Flags are what else is to be known of a frame.
type Flags uint8

// Elsewhere is that of a frame whose base need not be above the stack pointer: of a function
// which goes on with another stack than it was called on, or which has taken its return
// address off the stack.
const Elsewhere Flags = 1

// A Status is how a walk ended. The numbers are those of enum unwind_status in
// unwind.bpf.h.
type Status uint8

// The ways to end.
const (
	Complete  Status = iota // at the root
	Guessed                 // at the root, but at least one frame was found by frame pointer where there was no rule
	Depth                   // there was no room for more frames
	NoMapping               // the address of a frame is in nothing that is known to be mapped
	NoTable                 // it is in a file of which there is no table (yet)
	NoRule                  // the table has no rule for it
	Fault                   // the stack could not be read
	Broken                  // the caller would be no deeper in the stack, or be in what is not code
)

// Row is where a rule begins to hold: at the page's beginning plus Low, until the next row.
type Row struct {
	Low  uint16
	Rule uint16 // index of Table.Rules
}

// PageSize is how much code a Page is of, in bytes.
const PageSize = 1024

// Page is where a page's rows are. The first row of a page that has any has Low 0.
type Page struct {
	First uint32 // index of Table.Rows
	Count uint32
}

// Table is what a file tells of its frames. Addresses are those of the file's own (ELF
// virtual addresses). A Table doesn't change once made.
type Table struct {
	Start uint64 // address of the first page, a multiple of PageSize
	Pages []Page
	Rows  []Row
	Rules []Rule // each different; Rules[0] is the zero Rule

	Layout Layout
}
