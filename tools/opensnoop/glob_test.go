package main

import (
	"path"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestGlob(t *testing.T) {
	for _, test := range []struct {
		glob    string
		yes, no []string
	}{
		{"/etc/passwd", []string{"/etc/passwd"}, []string{"/etc/passwd-", "x/etc/passwd", "/etc/passw", ""}},
		{"*", []string{"", "/", "/etc/passwd", "a\nb", "\xff"}, nil},
		{"*.conf", []string{".conf", "/etc/x.conf", "/a\n/b.conf"}, []string{"x.conf/", "x.conf\n", "xconf"}},
		{"/etc/*", []string{"/etc/", "/etc/a/b"}, []string{"/etc", "/usr/etc/a"}},
		{"/proc/*/maps", []string{"/proc/1/maps", "/proc/1/task/1/maps", "/proc//maps"}, []string{"/proc/maps", "/proc/1/maps2"}},
		{"/proc/?/maps", []string{"/proc/1/maps", "/proc///maps", "/proc/é/maps", "/proc/\xff/maps"}, []string{"/proc/12/maps", "/proc//maps"}},
		{"[ab]c", []string{"ac", "bc"}, []string{"cc", "abc", "[ab]c"}},
		{"[a-c]", []string{"a", "b", "c"}, []string{"d", "-"}},
		{"[!a-c]", []string{"d", "-", "/", "\n", "\xff"}, []string{"a", "", "dd"}},
		{"[^a]", []string{"b", "^"}, []string{"a"}},
		{"[]a]", []string{"]", "a"}, []string{"b"}},
		{"[!]a]", []string{"b"}, []string{"]", "a"}},
		{"[-a]", []string{"-", "a"}, []string{"b"}},
		{"[a-]", []string{"-", "a"}, []string{"b"}},
		{"[a^]", []string{"^", "a"}, []string{"b"}},
		{"[*?]", []string{"*", "?"}, []string{"a", ""}},
		{"[.$]", []string{".", "$"}, []string{"a"}},
		{"[[a]", []string{"[", "a"}, []string{"b"}},
		{"[äö]x", []string{"äx", "öx"}, []string{"üx", "Ãx", "x"}},
		{"[а-я]", []string{"ж"}, []string{"z", "Ж"}},
		{`[\]]`, []string{"]"}, []string{`\`, `\]`}},
		{`[\\a]`, []string{`\`, "a"}, []string{"]"}},
		{`[a\-z]`, []string{"a", "-", "z"}, []string{"b", `\`}},
		{`\*`, []string{"*"}, []string{"a", `\*`}},
		{`a\b`, []string{"ab"}, []string{`a\b`}},
		{`\[a]`, []string{"[a]"}, []string{"a"}},
		{`\é`, []string{"é"}, []string{"e"}},
		{"a.c+(d|e){2}$", []string{"a.c+(d|e){2}$"}, []string{"abc", "a.cc"}},
		{"a]", []string{"a]"}, []string{"a"}},
	} {
		re, err := globPattern(test.glob)
		if err != nil {
			t.Errorf("%s: %v", test.glob, err)
			continue
		}
		for _, s := range test.yes {
			if !re.MatchString(s) {
				t.Errorf("%s does not match %q", test.glob, s)
			}
		}
		for _, s := range test.no {
			if re.MatchString(s) {
				t.Errorf("%s matches %q", test.glob, s)
			}
		}
	}
}

func TestGlobRefuses(t *testing.T) {
	for glob, want := range map[string]string{
		"": "empty", `\`: "backslash", `a\`: "backslash", "[": "without its ]", "[a": "without its ]", "[]": "without its ]",
		"[!]": "without its ]", "x[^": "without its ]", `[\]`: "without its ]", `[a\`: "without its ]", "[z-a]": "not a pattern", "\xff": "not a pattern",
		"[\xff]": "not a pattern",
	} {
		if _, err := globPattern(glob); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", glob, err)
		}
	}
}

func TestMatches(t *testing.T) {
	p := newPrinter(t, "--path", "*.conf", "--path", "/usr/*")
	for name, want := range map[string]bool{"/etc/a.conf": true, "/usr/a": true, "/etc/a": false, "": false} {
		if p.opts.matches([]byte(name)) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
	p = newPrinter(t, "--path", "*.conf", "--path-prefix", "/etc/")
	for name, want := range map[string]bool{"/etc/a.conf": true, "/usr/a.conf": false, "/etc/a": false, "/etc": false} {
		if p.opts.matches([]byte(name)) != want {
			t.Errorf("%q with both: %v", name, !want)
		}
	}
	if !newPrinter(t).opts.matches(nil) {
		t.Error("without a pattern nothing matches")
	}
}

// globMatches is the plain way to match a glob that globPattern takes.
func globMatches(glob, s []rune) bool {
	if len(glob) == 0 {
		return len(s) == 0
	}
	switch glob[0] {
	case '*':
		for i := range len(s) + 1 {
			if globMatches(glob[1:], s[i:]) {
				return true
			}
		}
		return false
	case '?':
		return len(s) > 0 && globMatches(glob[1:], s[1:])
	case '\\':
		return len(s) > 0 && s[0] == glob[1] && globMatches(glob[2:], s[1:])
	case '[':
		if len(s) == 0 {
			return false
		}
		in, rest := inClass(glob[1:], s[0])
		return in && globMatches(rest, s[1:])
	}
	return len(s) > 0 && s[0] == glob[0] && globMatches(glob[1:], s[1:])
}

// inClass tells whether a class, which goes up to its ], has a character, and
// gives what is behind it.
func inClass(class []rune, r rune) (in bool, rest []rune) {
	not := class[0] == '!' || class[0] == '^'
	if not {
		class = class[1:]
	}
	one := func() (c rune) {
		if class[0] == '\\' {
			class = class[1:]
		}
		c, class = class[0], class[1:]
		return c
	}
	for first := true; first || class[0] != ']'; first = false {
		low := one()
		high := low
		if class[0] == '-' && class[1] != ']' {
			class = class[1:]
			high = one()
		}
		in = in || low <= r && r <= high
	}
	return in != not, class[1:]
}

// No glob makes it panic, and what it takes matches as it should. Where a glob
// means the same to path.Match, that agrees.
func FuzzGlob(f *testing.F) {
	for _, seed := range [][2]string{
		{"*.conf", "a.conf"}, {"[a-c]?", "bx"}, {"[!a]*", "ba"}, {`\**`, "*x"}, {"[]-a]", "^"}, {"[é]", "é"}, {`[\]]`, "]"},
		{"a*b*c*d", "axbxcxd"}, {"[a-c-e]", "-"}, {"/*/?", "/a/b"}, {"[+--]", ","}, {"\xff", "\xff"}, {"?", "\xff"}, {"[^^]", "^"}, {`[\d]`, "1"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, glob, name string) {
		if len(glob) > 40 || len(name) > 40 || strings.Count(glob, "*") > 5 {
			return // the plain way takes long then
		}
		re, err := globPattern(glob)
		if err != nil {
			return
		}
		got := re.MatchString(name)
		if want := globMatches([]rune(glob), []rune(name)); got != want {
			t.Errorf("%q and %q: %v (%s)", glob, name, got, re)
		}
		same := !strings.ContainsAny(name, "/") && !strings.Contains(glob, "[!") && utf8.ValidString(name)
		if want, err := path.Match(glob, name); err == nil && same && got != want {
			t.Errorf("%q and %q: %v, and by path.Match %v (%s)", glob, name, got, want, re)
		}
	})
}
