package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/gobcc/gobcc/internal/common/debuginfod"
	"github.com/gobcc/gobcc/internal/common/sourcelines"
	"github.com/gobcc/gobcc/internal/common/symbols"
)

// This file has what --lines and --debuginfod add to names. Both are asked for, so that
// what comes of neither is told, and why.

// source is a file with debugging information.
type source struct {
	file *os.File
	name string // what remarks on it begin with; empty if it is the program itself
}

// nameBySeparate completes the names by debugging information, where that was asked for.
func (n *namer) nameBySeparate(g *group, file *opened) {
	if !n.lines && n.debuginfod == nil || file.file == nil {
		return
	}
	sources := []source{{file: file.file}}
	separate := func(f *os.File, name string) {
		sources = slices.Insert(sources, 0, source{f, name + ": "}) // it has more
	}
	switch {
	case file.DebugFile() != "":
		f, err := file.OpenDebugFile()
		if err != nil {
			g.noteLines(n, err.Error())
			break
		}
		defer f.Close()
		separate(f, file.DebugFile())
	case file.HasDebugInfo():
	default:
		f := n.fetch(g)
		if f == nil {
			break
		}
		defer f.Close()
		if err := nameByFetched(g, f, n.demangle); err != nil {
			g.problem = fmt.Errorf("--debuginfod: %s: %w", g.mapped.Path, err)
			break
		}
		separate(f, f.Name())
	}
	if !n.lines {
		return
	}
	for _, problem := range file.DebugFileProblems() {
		g.noteLines(n, problem.Error()+": install the debug file that belongs to this version, or remove this one")
	}
	for _, s := range sources {
		err := n.addLines(g, file, s)
		switch {
		case err == nil:
			return
		case errors.Is(err, sourcelines.ErrBudget):
			g.noteLines(n, fmt.Sprintf("%s%v: %s", s.name, err, overBudget))
			return
		case !errors.Is(err, sourcelines.ErrNone):
			g.noteLines(n, fmt.Sprintf("%s%v: %s", s.name, err, installAgain))
		}
	}
	hasLine := func(f *frame) bool { return len(f.Lines) > 0 && f.Lines[0].File != "" }
	g.noLines = len(g.notes) == 0 && !slices.ContainsFunc(g.frames, hasLine)
}

// What users can do.
const (
	overBudget   = "sample fewer programs at a time (-p), or decompress their debug files (objcopy --decompress-debug-sections)"
	installAgain = "install it again; what is read is DWARF 2 to 5"
)

// noteLines notes what is missing in a file's source lines.
func (g *group) noteLines(n *namer, text string) {
	if n.lines {
		g.notes = append(g.notes, "--lines: "+g.mapped.Path+": "+text)
	}
}

// fetch gets the debug file of a group's file from a server; nil if it can't be had.
func (n *namer) fetch(g *group) *os.File {
	if n.debuginfod == nil || g.mapped.BuildID == "" {
		return nil
	}
	f, err := n.fetchByID(g.mapped.BuildID)
	if err != nil {
		if !errors.Is(err, debuginfod.ErrNotFound) {
			g.problem = fmt.Errorf("--debuginfod: %s: %w", g.mapped.Path, err)
		}
		return nil
	}
	return f
}

func (n *namer) fetchByID(buildID string) (*os.File, error) {
	n.fetching.Lock()
	defer n.fetching.Unlock()
	return n.debuginfod.Debuginfo(context.Background(), buildID)
}

// nameByFetched names frames by the symbols of a debug file that is of the group's file.
// The error is that of one which is not.
func nameByFetched(g *group, f *os.File, demangle bool) error {
	file, err := fetched(f, g.mapped.BuildID, demangle)
	if err != nil {
		return err
	}
	defer file.Close()
	g.mapped.Symbols = g.mapped.Symbols || file.HasSymbols()
	for _, f := range g.frames {
		if line, ok := file.Find(f.Address); ok && len(f.Lines) < 2 {
			f.Lines = []symbols.Line{line}
		}
	}
	return nil
}

// fetched opens what a server gave for a build id, now or earlier.
func fetched(f *os.File, buildID string, demangle bool) (*symbols.File, error) {
	file, err := symbols.OpenFile(f, symbols.Options{Demangle: demangle})
	if err == nil && file.BuildID() != buildID {
		err = fmt.Errorf("it has build id %q and not %q", file.BuildID(), buildID)
		file.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("%s, from a server, is of no use: %w: remove it to have it fetched again", f.Name(), err)
	}
	return file, nil
}

// addLines gives frames their source lines, and the functions that are inlined there, by
// the debugging information in from.
func (n *namer) addLines(g *group, file *opened, from source) error {
	options := sourcelines.Options{Alternate: func(path string, buildID []byte) (*os.File, error) {
		return n.openAlternate(file, path, buildID)
	}}
	if n.demangle {
		options.Demangle = symbols.Demangle
	}
	lines, err := sourcelines.Open(from.file, n.budget, options)
	if err != nil {
		return err
	}
	defer lines.Close()
	for _, note := range lines.Notes() {
		g.noteLines(n, from.name+note)
	}
	frames := slices.Clone(g.frames)
	slices.SortFunc(frames, func(a, b *frame) int { return cmp.Compare(a.Address, b.Address) })
	unread, why := 0, error(nil)
	for i, f := range frames {
		if len(f.Lines) > 0 && f.Lines[0].File != "" {
			continue // a Go program's, which its own table tells in full
		}
		found, err := lines.Lines(f.Address)
		if errors.Is(err, sourcelines.ErrBudget) {
			g.noteLines(n, fmt.Sprintf("%s%d of %d addresses have no source lines: %v: %s", from.name, unread+len(frames)-i, len(frames), err, overBudget))
			return nil
		}
		if err != nil {
			unread, why = unread+1, cmp.Or(why, err)
		}
		if err != nil || len(found) == 0 {
			continue
		}
		// The symbol table knows the function that all is inlined into as the linker does.
		outer := &found[len(found)-1]
		if len(f.Lines) > 0 {
			known := f.Lines[len(f.Lines)-1]
			outer.Function, outer.Linkage, outer.Start = known.Function, known.Linkage, known.Start
		}
		if outer.Function != "" {
			f.Lines = found
		}
	}
	if unread > 0 {
		g.noteLines(n, fmt.Sprintf("%s%d of %d addresses have no source lines: %v: %s", from.name, unread, len(frames), why, installAgain))
	}
	return nil
}

// openAlternate opens the file with what dwz took out of a file's debugging information.
func (n *namer) openAlternate(file *opened, path string, buildID []byte) (*os.File, error) {
	f, err := file.OpenAlternate(path, buildID)
	if err == nil || len(buildID) == 0 {
		return f, err
	}
	if n.debuginfod == nil {
		return nil, fmt.Errorf("%w: install the debug package with it, or use --debuginfod", err)
	}
	id := hex.EncodeToString(buildID)
	f, fetchErr := n.fetchByID(id)
	if fetchErr != nil {
		return nil, fmt.Errorf("%w; %w", err, fetchErr)
	}
	got, fetchErr := fetched(f, id, false)
	if fetchErr != nil {
		f.Close()
		return nil, fmt.Errorf("%w; %w", err, fetchErr)
	}
	got.Close()
	return f, nil
}

// sayNoLines says that there is no debugging information for files, which is so for most:
// all in one line.
func (n *namer) sayNoLines(groups []*group) {
	first, more := "", 0
	for _, g := range groups {
		switch {
		case !g.noLines:
		case first == "":
			first = g.mapped.Path
		case g.mapped.Path != first:
			more++
		}
	}
	if first == "" {
		return
	}
	switch {
	case more == 1:
		first += " and one more file"
	case more > 1:
		first += fmt.Sprintf(" and %d more files", more)
	}
	remedy := "install the packages with it, or fetch it with --debuginfod"
	if n.debuginfod != nil {
		remedy = "install the packages with it, or name a server in DEBUGINFOD_URLS that has it"
	}
	n.say(fmt.Sprintf("--lines: there is no debugging information for %s: %s", first, remedy))
}
