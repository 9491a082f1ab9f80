// Package symbols names addresses: of the kernel, of mapped files, and of code that
// a runtime made.
package symbols

// Line is a function at an address. Where others were inlined into it, an address has
// several.
type Line struct {
	Function string // demangled, unless that was not wanted
	Linkage  string // the name as the symbol table has it; equal to Function if that was not mangled
	Start    uint64 // where the function starts, in the file's own addresses; 0 if not known
	File     string // source file; empty if not known
	Line     int    // 0 if not known
	// StartLine is the function's own line; 0 if not known.
	StartLine int
}
