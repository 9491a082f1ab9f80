package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/debuginfod"
	"github.com/gobcc/gobcc/internal/common/jvm"
	"github.com/gobcc/gobcc/internal/common/mappings"
	"github.com/gobcc/gobcc/internal/common/sourcelines"
	"github.com/gobcc/gobcc/internal/common/symbols"
)

// namer names the frames of an engine, when the sampling is over.
type namer struct {
	demangle bool
	lines    bool // source lines are wanted
	say      func(text string)

	fetching   sync.Mutex
	debuginfod *debuginfod.Client // nil unless it was asked for; for one at a time
	budget     *sourcelines.Budget

	kernel   *symbols.Kernel
	problem  error // why there is no kernel
	reading  sync.WaitGroup
	read     chan struct{} // closed when kernel or problem is there
	told     bool          // of the problem
	perfMaps map[*mappings.Process]*symbols.PerfMapFile
	javaMaps bool           // JVMs are to be asked for theirs
	handles  map[uint32]int // pidfds of what has perfMaps, by pid; only with javaMaps
}

// start begins to read the names of the kernel, which takes a while, if there will be
// frames of it.
func (n *namer) start(kernel bool) {
	n.perfMaps = map[*mappings.Process]*symbols.PerfMapFile{}
	n.handles = map[uint32]int{}
	if !kernel {
		return
	}
	n.read = make(chan struct{})
	n.reading.Go(func() {
		n.kernel, n.problem = symbols.OpenKernel()
		close(n.read)
	})
}

// sayKernel says once that functions of the kernel will have no names, as soon as it is
// known: there is no need to wait for the end of a long run to find out.
func (n *namer) sayKernel() {
	select {
	case <-n.read:
		if n.problem != nil && !n.told {
			n.told = true
			n.say("no names of kernel functions: " + n.problem.Error())
		}
	default:
	}
}

// generated is to be called when a process is seen to run code that it made itself: once
// it has ended, its map can't be found any more.
func (n *namer) generated(p *mappings.Process) {
	if _, ok := n.perfMaps[p]; ok {
		return
	}
	file, err := symbols.FindPerfMap(int(p.PID))
	if err != nil {
		file = nil // its frames say [anon]
	}
	n.perfMaps[p] = file
	if file == nil || !n.javaMaps {
		return
	}
	// At the end it tells whether the pid is still that of the same process.
	if handle, err := unix.PidfdOpen(int(p.PID), 0); err == nil {
		if before, ok := n.handles[p.PID]; ok {
			unix.Close(before)
		}
		n.handles[p.PID] = handle
	}
}

// askTime is for how long JVMs may take to write their perf maps, all together: their users
// wait for the report, and a JVM answers when it comes to it.
const askTime = 2 * time.Second

// askAtOnce is how many JVMs are asked at a time.
const askAtOnce = 16

// askJVMs has the JVMs that ran code which they made write their perf maps. Those that have
// ended can't, and their names are lost.
func (n *namer) askJVMs() {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	pids := slices.Sorted(maps.Keys(n.handles))
	refusals := make([]error, len(pids))
	var wg sync.WaitGroup
	turns := make(chan struct{}, askAtOnce)
	for i, pid := range pids {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			if refusals[i] = unix.PidfdSendSignal(n.handles[pid], 0, nil, 0); refusals[i] == nil {
				refusals[i] = jvm.WritePerfMap(ctx, int(pid))
			}
		})
	}
	wg.Wait()
	var texts []string
	for _, err := range refusals {
		if err != nil && !errors.Is(err, jvm.ErrNoJVM) && !errors.Is(err, unix.ESRCH) && !errors.Is(err, fs.ErrNotExist) {
			texts = append(texts, "--java-perfmap: "+err.Error())
		}
	}
	n.sayList(texts, "--java-perfmap: %d more JVMs did not write theirs")
}

func (n *namer) close() {
	n.reading.Wait()
	for _, handle := range n.handles {
		unix.Close(handle)
	}
	for _, f := range n.perfMaps {
		if f != nil {
			f.Close()
		}
	}
}

// What source lines may take.
const (
	linesMemory = 256 << 20
	linesTime   = 10 * time.Second
)

// group is the frames that are named by one thing, such as a file.
type group struct {
	origin
	frames    []*frame // in the order of first use
	byAddress map[uint64]*frame
	mapped    *mapped // nil if they are in none
	root      string  // directory, of a process that has the file mapped; empty if not known
	problem   error
	notes     []string // what is missing in its source lines
	noLines   bool     // there is no debugging information
}

func newGroup(from origin) *group {
	g := &group{origin: from, byAddress: map[uint64]*frame{}}
	switch {
	case g.kind == kindKernel:
		g.mapped = &mapped{Path: "[kernel.kallsyms]"}
	case g.file != nil:
		g.mapped = &mapped{Path: g.file.Path, BuildID: g.file.BuildID}
	}
	return g
}

func (g *group) frame(addr uint64) *frame {
	f := g.byAddress[addr]
	if f == nil {
		f = &frame{Kind: g.kind, Address: addr, File: g.mapped}
		g.byAddress[addr] = f
		g.frames = append(g.frames, f)
	}
	return f
}

// name names all frames of an engine, and gives the files that they are in.
func (n *namer) name(e *engine) []*mapped {
	groups := e.groups
	n.budget = sourcelines.NewBudget(linesMemory, linesTime)
	n.reading.Wait()
	var wg sync.WaitGroup
	turns := make(chan struct{}, runtime.GOMAXPROCS(0))
	for _, g := range groups {
		g.byAddress = nil // which is of no use any more
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			n.nameGroup(g)
		})
	}
	wg.Wait()
	var files []*mapped
	for _, g := range groups {
		if g.mapped != nil {
			files = append(files, g.mapped)
		}
		for _, f := range g.frames {
			if len(f.Lines) == 0 {
				f.Lines = []symbols.Line{{Function: g.unnamed(f)}}
			}
		}
	}
	n.sayProblems(groups)
	return files
}

func (n *namer) nameGroup(g *group) {
	switch g.kind {
	case kindKernel:
		n.nameKernel(g)
	case kindJIT:
		n.nameGenerated(g)
	case kindUser:
		n.nameFile(g)
	}
}

func (n *namer) nameKernel(g *group) {
	if n.kernel == nil {
		n.sayKernel() // if the run was over before
		return
	}
	g.mapped.Start, g.mapped.Limit = n.kernel.Text()
	// Modules and BPF programs come and go. To read all again takes longer than all else
	// here, and the rest stays as it is.
	if slices.ContainsFunc(g.frames, func(f *frame) bool { return f.Address < g.mapped.Start || f.Address >= g.mapped.Limit }) {
		if later, err := symbols.OpenKernel(); err == nil {
			n.kernel.Merge(later)
		}
	}
	g.mapped.Symbols = true
	for _, f := range g.frames {
		line, module, ok := n.kernel.Find(f.Address)
		if !ok {
			continue
		}
		if module != "" {
			line.Function += " [" + module + "]"
			line.Linkage = line.Function
		}
		f.Lines = []symbols.Line{line}
	}
}

func (n *namer) nameGenerated(g *group) {
	file := n.perfMaps[g.process]
	if file == nil || g.execs != g.process.Execs {
		return // the map is of the program that the process was at last
	}
	perfMap, err := file.Read()
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			g.problem = fmt.Errorf("read the perf map of process %d: %w", g.process.PID, err)
		}
		return
	}
	for _, f := range g.frames {
		if line, ok := perfMap.Find(f.Address); ok {
			f.Lines = []symbols.Line{line}
			g.mapped.Symbols = true
		}
	}
}

func (n *namer) nameFile(g *group) {
	file, err := n.open(g)
	if err != nil {
		g.problem = err
		return
	}
	defer file.Close()
	n.nameOpened(g, file)
}

func (n *namer) nameOpened(g *group, file *opened) {
	g.mapped.Symbols = file.HasSymbols()
	g.mapped.BuildID = cmp.Or(g.mapped.BuildID, file.BuildID())
	for i, f := range g.frames {
		vaddr, ok := file.Address(f.Address)
		if !ok {
			continue
		}
		f.Address = vaddr
		if i == 0 {
			m := g.mapped
			m.Start, m.Limit, m.Offset, _ = file.Segment(vaddr)
		}
		if f.Lines = file.Lines(vaddr); len(f.Lines) == 0 {
			if line, ok := file.Find(vaddr); ok {
				f.Lines = []symbols.Line{line}
			}
		}
	}
	n.nameBySeparate(g, file)
	g.explain(file)
	for _, f := range g.frames {
		for j, line := range f.Lines {
			g.mapped.SourceFiles = g.mapped.SourceFiles || line.File != ""
			g.mapped.LineNumbers = g.mapped.LineNumbers || line.Line > 0
			g.mapped.Inlining = g.mapped.Inlining || j > 0
		}
	}
}

// explain tells why frames have no names, if the file or its debug file is the reason.
func (g *group) explain(file *opened) {
	unnamed := func(f *frame) bool { return len(f.Lines) == 0 }
	if problems := file.Problems(); g.problem == nil && len(problems) > 0 && slices.ContainsFunc(g.frames, unnamed) {
		g.problem = fmt.Errorf("%s: %s", g.mapped.Path, listed(problems))
	}
}

// listed puts errors into one line.
func listed(errs []error) string {
	var texts []string
	for _, err := range errs {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "; ")
}

// opened is a file's symbols, and the file.
type opened struct {
	*symbols.File
	file *os.File
}

func (o *opened) Close() {
	o.File.Close()
	if o.file != nil {
		o.file.Close()
	}
}

func (n *namer) open(g *group) (*opened, error) {
	switch g.file.Kind {
	case mappings.VDSO:
		file, err := symbols.OpenVDSO()
		return &opened{File: file}, err
	case mappings.Regular:
	default:
		return nil, errNoNames
	}
	f, err := g.file.Open()
	if err != nil {
		return nil, err
	}
	options := symbols.Options{Path: g.file.Path, Demangle: n.demangle, Lines: n.lines}
	// A process that is still there, and sees the file by that path.
	if g.root != "" {
		options.Roots = append(options.Roots, g.root)
	}
	options.Roots = append(options.Roots, "/")
	file, err := symbols.OpenFile(f, options)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("read the names of functions in %s: %w", g.file.Path, err)
	}
	return &opened{file, f}, nil
}

// errNoNames is that of memory that has none, which needs no word.
var errNoNames = errors.New("it has no names")

// unnamed says what is known of a frame that has no name.
func (g *group) unnamed(f *frame) string {
	switch {
	case g.kind == kindKernel:
		return "[kernel]"
	case g.kind == kindUnknown:
		return "[unknown]"
	case g.kind == kindJIT && strings.HasPrefix(g.mapped.Path, "["):
		return g.mapped.Path // [anon], [heap]
	}
	// A path is the process's choice, and names may not look as if they were two.
	return fmt.Sprintf("[%s+%#x]", path.Base(g.mapped.Path), f.Address)
}

// maxProblems is how many files are named at most that could not be read, and so on.
const maxProblems = 5

// sayProblems says why names are missing, or source lines.
func (n *namer) sayProblems(groups []*group) {
	var texts []string
	for _, g := range groups {
		if g.problem == nil || errors.Is(g.problem, errNoNames) || errors.Is(g.problem, symbols.ErrNoELF) {
			continue
		}
		if text := "no names: " + g.problem.Error(); !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	n.sayList(texts, "no names, for similar reasons, in %d more files")
	var notes []string
	for _, g := range groups {
		for _, note := range g.notes {
			if !slices.Contains(notes, note) { // a file may have been replaced by a like one
				notes = append(notes, note)
			}
		}
	}
	n.sayList(notes, "--lines: %d more such remarks on files")
	n.sayNoLines(groups)
}

// sayList says the first texts, and how many more there are.
func (n *namer) sayList(texts []string, more string) {
	for i, text := range texts {
		if i == maxProblems {
			n.say(fmt.Sprintf(more, len(texts)-i))
			return
		}
		n.say(text)
	}
}
