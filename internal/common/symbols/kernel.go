package symbols

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
)

// ErrRestricted is returned where the kernel hides the addresses of its functions.
var ErrRestricted = errors.New("the kernel hides the addresses of its functions: run as root or with CAP_SYSLOG, and with sysctl kernel.kptr_restrict below 2")

// maxKernelSymbols bounds the memory that /proc/kallsyms can take: its greatest
// builds have some 200,000.
const maxKernelSymbols = 4 << 20

// moduleTail is how far in bytes the last function of a module, and a BPF program that
// nothing follows, is taken to reach: kallsyms tells no sizes, and what is further away
// is more likely something that wasn't there when it was read.
const moduleTail = 64 << 10

// Kernel names addresses of the running kernel.
type Kernel struct {
	symbols    []kernelSymbol // by address
	names      []byte         // of all, each with its length before it
	modules    []string       // the first is the kernel itself, with no name
	start, end uint64
}

// A kernelSymbol takes the addresses up to the next one.
type kernelSymbol struct {
	addr   uint64
	name   uint32 // offset in names, or noFunction where no function is
	module uint16
	rank   uint8 // the greatest one of those at one address is shown
	// padding is the number of bytes in front of the function that belong to it: space
	// for code that the kernel puts there when it finds that it is to count calls.
	padding uint8
}

// paddingPrefix is how kallsyms names the padding of a function since 6.2 (commit
// b341b20d648b).
const paddingPrefix = "__pfx_"

// onlyPadding marks a symbol as that of padding, until tidy finds its function.
const onlyPadding = math.MaxUint8

// OpenKernel reads /proc/kallsyms. The error is ErrRestricted if the kernel hides its
// addresses.
func OpenKernel() (*Kernel, error) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil, fmt.Errorf("read the kernel's symbols: %w", err)
	}
	defer f.Close()
	k, err := ReadKallsyms(f)
	if err != nil {
		return nil, fmt.Errorf("read the kernel's symbols: %w", err)
	}
	return k, nil
}

// ReadKallsyms reads what /proc/kallsyms has: a line "ADDRESS TYPE NAME [MODULE]" for
// each symbol. The error is ErrRestricted if all addresses are zero.
func ReadKallsyms(r io.Reader) (*Kernel, error) {
	k := &Kernel{modules: []string{""}}
	var text, stext uint64
	moduleOf := map[string]uint16{"": 0}
	restricted := true
	last := uint32(noFunction)
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), 64<<10)
	for lines.Scan() {
		addr, kind, name, module, ok := kallsymsLine(lines.Bytes())
		if !ok {
			continue
		}
		if addr == 0 {
			continue
		}
		restricted = false
		if len(k.symbols) >= maxKernelSymbols {
			return nil, fmt.Errorf("more than %d symbols", maxKernelSymbols)
		}
		s := kernelSymbol{addr: addr, name: noFunction}
		id, known := moduleOf[string(module)]
		if !known && len(k.modules) <= math.MaxUint16 {
			id = uint16(len(k.modules))
			moduleOf[string(module)] = id
			k.modules = append(k.modules, string(module))
		}
		s.module = id
		switch {
		case string(name) == "_text":
			text = addr
		case string(name) == "_stext":
			stext = addr
		case string(name) == "_etext":
			k.end = addr
		}
		if isKernelFunction(kind, name) && len(name) <= math.MaxUint16 {
			s.rank = kernelRank(kind, name)
			if rest, ok := bytes.CutPrefix(name, []byte(paddingPrefix)); ok && len(rest) > 0 {
				name = rest
				s.padding = onlyPadding
			}
			// A function and its padding follow each other, and have the same name.
			if last == noFunction || !bytes.Equal(k.name(last), name) {
				if last, ok = k.addName(name); !ok {
					return nil, errors.New("more than 4 GB of names")
				}
			}
			s.name = last
		}
		k.symbols = append(k.symbols, s)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if restricted {
		return nil, ErrRestricted
	}
	k.start = cmp.Or(text, stext)
	k.tidy()
	return k, nil
}

// kallsymsLine takes a line apart.
func kallsymsLine(line []byte) (addr uint64, kind byte, name, module []byte, ok bool) {
	i := 0
	for ; i < len(line) && line[i] != ' '; i++ {
		d := hexDigit(line[i])
		if d < 0 || i == 16 {
			return 0, 0, nil, nil, false
		}
		addr = addr<<4 | uint64(d)
	}
	if i == 0 || i+3 >= len(line) || line[i+2] != ' ' {
		return 0, 0, nil, nil, false
	}
	kind = line[i+1]
	name = line[i+3:]
	if tab := bytes.IndexByte(name, '\t'); tab >= 0 {
		module = bytes.Trim(name[tab+1:], "[]")
		name = name[:tab]
	}
	return addr, kind, name, module, len(name) > 0
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// isKernelFunction tells functions from data, and from labels that only say where
// something starts or ends.
func isKernelFunction(kind byte, name []byte) bool {
	switch kind {
	case 'T', 't', 'W', 'w':
	default:
		return false
	}
	switch string(name) {
	case "_text", "_stext", "_etext", "_sinittext", "_einittext", "_end":
		return false
	}
	return name[0] != '.' && name[0] != '$'
}

// kernelRank tells which of several names at one address is shown.
func kernelRank(kind byte, name []byte) uint8 {
	rank := uint8(31 - min(underscores(name), 31))
	// Padding, and the alias of code that runs before the kernel has moved to its place,
	// are of no interest where there is another name.
	if bytes.HasPrefix(name, []byte(paddingPrefix)) || bytes.HasPrefix(name, []byte("__pi_")) {
		return rank
	}
	// A system call that takes no arguments has one function for both of its entries (as
	// getppid), which nearly all enter by that of 64 bits.
	if bytes.HasPrefix(name, []byte("__ia32_sys_")) {
		rank--
	}
	switch kind {
	case 'T':
		rank += 96
	case 'W', 'w':
		rank += 64
	default:
		rank += 32
	}
	return rank
}

// tidy sorts the symbols and leaves one at each address.
func (k *Kernel) tidy() {
	slices.SortFunc(k.symbols, func(a, b kernelSymbol) int {
		if c := cmp.Compare(a.addr, b.addr); c != 0 {
			return c
		}
		// A function before what is none.
		if c := cmp.Compare(b2i(a.name == noFunction), b2i(b.name == noFunction)); c != 0 {
			return c
		}
		if c := cmp.Compare(b.rank, a.rank); c != 0 {
			return c
		}
		return bytes.Compare(k.name(a.name), k.name(b.name))
	})
	kept := k.symbols[:0]
	for _, s := range k.symbols {
		if n := len(kept); n > 0 {
			before := &kept[n-1]
			if before.addr == s.addr || before.name == noFunction && s.name == noFunction {
				continue
			}
			if distance := s.addr - before.addr; before.padding == onlyPadding && s.padding == 0 && distance < onlyPadding &&
				before.module == s.module && bytes.Equal(k.name(before.name), k.name(s.name)) {
				s.addr, s.padding = before.addr, uint8(distance)
				*before = s
				continue
			}
		}
		kept = append(kept, s)
	}
	k.symbols = slices.Clip(kept)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// addName keeps a name and gives its offset. It is not ok if there is no room.
func (k *Kernel) addName(name []byte) (offset uint32, ok bool) {
	if len(k.names) >= math.MaxUint32-len(name)-2 {
		return 0, false
	}
	offset = uint32(len(k.names))
	k.names = append(k.names, byte(len(name)), byte(len(name)>>8))
	k.names = append(k.names, name...)
	return offset, true
}

func (k *Kernel) name(offset uint32) []byte {
	if offset == noFunction {
		return nil
	}
	b := k.names[offset:]
	return b[2 : 2+(int(b[0])|int(b[1])<<8)]
}

// Merge adds the functions that a later reading has and this one doesn't: modules and
// BPF programs come and go while a tool runs. Where both have one at an address, the
// later one's is kept.
func (k *Kernel) Merge(later *Kernel) {
	moduleOf := map[string]uint16{}
	for i, m := range k.modules {
		moduleOf[m] = uint16(i)
	}
	known := map[uint64]int{}
	for i, s := range k.symbols {
		known[s.addr] = i
	}
	for _, s := range later.symbols {
		if s.name == noFunction {
			continue
		}
		name, module := later.name(s.name), later.modules[s.module]
		i, there := known[s.addr]
		if there && k.modules[k.symbols[i].module] == module && bytes.Equal(k.name(k.symbols[i].name), name) {
			continue
		}
		id, ok := moduleOf[module]
		if !ok && len(k.modules) <= math.MaxUint16 {
			id = uint16(len(k.modules))
			moduleOf[module] = id
			k.modules = append(k.modules, module)
		}
		s.module = id
		if s.name, ok = k.addName(name); !ok {
			return
		}
		if there {
			k.symbols[i] = s
		} else {
			k.symbols = append(k.symbols, s)
		}
	}
	k.tidy()
}

// Find names the function at an address, and the module it is in: empty for the kernel
// itself, bpf for BPF programs.
func (k *Kernel) Find(addr uint64) (line Line, module string, ok bool) {
	i, found := slices.BinarySearchFunc(k.symbols, addr, func(s kernelSymbol, addr uint64) int { return cmp.Compare(s.addr, addr) })
	if !found {
		i--
	}
	if i < 0 {
		return Line{}, "", false
	}
	s := k.symbols[i]
	if s.name == noFunction {
		return Line{}, "", false
	}
	last := i+1 == len(k.symbols) || k.symbols[i+1].module != s.module
	if last && addr-s.addr >= moduleTail {
		return Line{}, "", false
	}
	name := string(k.name(s.name))
	start := s.addr
	if s.padding != onlyPadding && addr >= start+uint64(s.padding) {
		start += uint64(s.padding)
	}
	return Line{Function: name, Linkage: name, Start: start}, k.modules[s.module], true
}

// Text gives the addresses that the kernel's own code takes, without modules; zeros if
// they aren't known.
func (k *Kernel) Text() (start, end uint64) {
	return k.start, k.end
}
