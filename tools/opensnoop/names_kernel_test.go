package main

import (
	"path/filepath"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

// odd are names that a terminal, or a reader of lines, would stumble over, and
// how a row of text shows them.
var odd = []struct{ name, shown string }{
	{"new\nline", `new\nline`},
	{"\x1b[31mred\x1b[0m", `\x1b[31mred\x1b[0m`},
	{"not\xffutf-8", `not\xffutf-8`},
	{"\u202egnp.exe", `\u202egnp.exe`},
	{"back\\slash", `back\\slash`},
	{"tab\tand\rreturn", `tab\tand\rreturn`},
	{"bell\x07del\x7f", `bell\x07del\x7f`},
	{"c1\u009b", `c1\u009b`},
	{"naïve 文書 🙂", "naïve 文書 🙂"},
	{`"quoted"`, `"quoted"`},
}

// nameScenes are of odd names of files and of threads.
var nameScenes = []scene{
	{name: "odd names", play: func(s *script) {
		for _, n := range odd {
			file := s.file(s.dir, n.name)
			for range times {
				s.reads(file, file)
			}
			missing := filepath.Join(s.dir, "missing "+n.name)
			s.fails(missing, missing, 2)
		}
	}},
	{name: "odd comm", play: func(s *script) {
		s.base.Comm = "c\n\x1b[1m\xff\u202e\\"
		s.must(livetest.SetComm(s.base.Comm))
		file := s.file(s.dir, "file")
		for range times {
			s.reads(file, file)
		}
	}},
}
