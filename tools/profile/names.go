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
	perfMaps map[*mappings.Process]*symbols.PerfMapFile
	javaMaps bool           // JVMs are to be asked for theirs
	handles  map[uint32]int // pidfds of what has perfMaps, by pid; only with javaMaps
}

// start begins to read the names of the kernel, which takes a while, if there will be
// frames of it.
func (n *namer) start(kernel bool) {
	n.perfMaps = map[*mappings.Process]*symbols.PerfMapFile{}
	n.handles = map[uint32]int{}
	if kernel {
		n.reading.Go(func() { n.kernel, n.problem = symbols.OpenKernel() })
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
	file    *mappings.File    // of kindUser, and of kindJIT
	process *mappings.Process // of kindJIT
	frames  []located
	mapped  *mapped // nil if they are in none
	root    string  // directory, of a process that has the file mapped; empty if not known
	problem error
	notes   []string // what is missing in its source lines
}

// name names all frames of an engine, and gives the files that they are in.
func (n *namer) name(e *engine) []*mapped {
	groups := n.group(e.frames)
	n.budget = sourcelines.NewBudget(linesMemory, linesTime)
	n.reading.Wait()
	var wg sync.WaitGroup
	turns := make(chan struct{}, runtime.GOMAXPROCS(0))
	for _, g := range groups {
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
			f.File = g.mapped
			if len(f.Lines) == 0 {
				f.Lines = []symbols.Line{{Function: g.unnamed(f)}}
			}
		}
	}
	n.sayProblems(groups)
	return files
}

// group puts frames that are named by the same thing together, in the order of their first
// use.
func (n *namer) group(frames []located) []*group {
	type key struct {
		kind    kind
		file    *mappings.File
		process *mappings.Process
	}
	groups := map[key]*group{}
	var list []*group
	for _, f := range frames {
		k := key{f.kind, f.place.file, f.process}
		g := groups[k]
		if g == nil {
			g = &group{file: f.place.file, process: f.process, root: f.root}
			switch {
			case f.kind == kindKernel:
				g.mapped = &mapped{Path: "[kernel.kallsyms]"}
			case g.file != nil:
				g.mapped = &mapped{Path: g.file.Path, BuildID: g.file.BuildID}
			}
			groups[k] = g
			list = append(list, g)
		}
		g.frames = append(g.frames, f)
	}
	return list
}

func (n *namer) nameGroup(g *group) {
	switch g.frames[0].kind {
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
		g.problem = n.problem
		return
	}
	g.mapped.Start, g.mapped.Limit = n.kernel.Text()
	// Modules and BPF programs come and go. To read all again takes longer than all else
	// here, and the rest stays as it is.
	if slices.ContainsFunc(g.frames, func(f located) bool { return f.Address < g.mapped.Start || f.Address >= g.mapped.Limit }) {
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
	if file == nil {
		return
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
	for _, f := range g.frames {
		for j, line := range f.Lines {
			g.mapped.SourceFiles = g.mapped.SourceFiles || line.File != ""
			g.mapped.LineNumbers = g.mapped.LineNumbers || line.Line > 0
			g.mapped.Inlining = g.mapped.Inlining || j > 0
		}
	}
}

// nameBySeparate completes the names by debugging information, where that was asked for.
func (n *namer) nameBySeparate(g *group, file *opened) {
	if !n.lines && n.debuginfod == nil || file.file == nil {
		return
	}
	sources := []*os.File{file.file}
	if file.DebugFile() != "" {
		if f, err := file.OpenDebugFile(); err == nil {
			defer f.Close()
			sources = append(sources, f)
		}
	} else if f := n.fetch(g); f != nil {
		defer f.Close()
		sources = append(sources, f)
		nameByFetched(g, f, n.demangle)
	}
	if !n.lines {
		return
	}
	for _, f := range slices.Backward(sources) { // the separate one has more
		err := n.addLines(g, f)
		if err == nil {
			return
		}
		if !errors.Is(err, sourcelines.ErrNone) {
			g.problem = fmt.Errorf("--lines: %s: %w", g.mapped.Path, err)
		}
	}
}

// fetch gets the debug file of a group's file from a server; nil if it can't be had.
func (n *namer) fetch(g *group) *os.File {
	if n.debuginfod == nil || g.mapped.BuildID == "" {
		return nil
	}
	n.fetching.Lock()
	defer n.fetching.Unlock()
	f, err := n.debuginfod.Debuginfo(context.Background(), g.mapped.BuildID)
	if err != nil {
		if !errors.Is(err, debuginfod.ErrNotFound) {
			g.problem = fmt.Errorf("--debuginfod: %s: %w", g.mapped.Path, err)
		}
		return nil
	}
	return f
}

// nameByFetched names frames by the symbols of a debug file that is of the group's file.
func nameByFetched(g *group, f *os.File, demangle bool) {
	file, err := symbols.OpenFile(f, symbols.Options{Demangle: demangle})
	if err != nil || file.BuildID() != g.mapped.BuildID {
		return // what the server gave is of no use
	}
	defer file.Close()
	g.mapped.Symbols = g.mapped.Symbols || file.HasSymbols()
	for _, f := range g.frames {
		if line, ok := file.Find(f.Address); ok && len(f.Lines) < 2 {
			f.Lines = []symbols.Line{line}
		}
	}
}

// addLines gives frames their source lines, and the functions that are inlined there.
func (n *namer) addLines(g *group, f *os.File) error {
	options := sourcelines.Options{}
	if n.demangle {
		options.Demangle = symbols.Demangle
	}
	file, err := sourcelines.Open(f, n.budget, options)
	if err != nil {
		return err
	}
	defer func() {
		for _, note := range file.Notes() {
			g.notes = append(g.notes, "--lines: "+g.mapped.Path+": "+note)
		}
		file.Close()
	}()
	frames := slices.Clone(g.frames)
	slices.SortFunc(frames, func(a, b located) int { return cmp.Compare(a.Address, b.Address) })
	for _, f := range frames {
		if len(f.Lines) > 0 && f.Lines[0].File != "" {
			continue // a Go program's, which its own table tells in full
		}
		lines, err := file.Lines(f.Address)
		if errors.Is(err, sourcelines.ErrBudget) {
			return err
		}
		if err != nil || len(lines) == 0 {
			continue
		}
		// The symbol table knows the function that all is inlined into as the linker does.
		outer := &lines[len(lines)-1]
		if len(f.Lines) > 0 {
			known := f.Lines[len(f.Lines)-1]
			outer.Function, outer.Linkage, outer.Start = known.Function, known.Linkage, known.Start
		}
		if outer.Function != "" {
			f.Lines = lines
		}
	}
	return nil
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
	options := symbols.Options{Path: g.file.Path, Demangle: n.demangle}
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
func (g *group) unnamed(f located) string {
	switch {
	case f.kind == kindKernel:
		return "[kernel]"
	case f.kind == kindUnknown:
		return "[unknown]"
	case f.kind == kindJIT && strings.HasPrefix(g.mapped.Path, "["):
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
