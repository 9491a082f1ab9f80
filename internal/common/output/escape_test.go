package output

import (
	"bytes"
	"testing"
	"unicode/utf8"
)

var escapes = []struct{ name, in, want string }{
	{"empty", "", ""},
	{"plain", "/etc/ld.so.cache", "/etc/ld.so.cache"},
	{"space", "a b ", "a b "},
	{"newline, tab, return", "a\nb\tc\rd", `a\nb\tc\rd`},
	{"backslash", `a\n`, `a\\n`},
	{"escape sequence", "\x1b[2J", `\x1b[2J`},
	{"nul, bell, del", "\x00\x07\x7f", `\x00\x07\x7f`},
	{"C1 code point", "\u0085\u009b", `\u0085\u009b`},
	{"C1 as a bare byte", "\x9b2J", `\x9b2J`},
	{"latin, greek, han", "é λ 中文", "é λ 中文"},
	{"cut UTF-8", "中\xe4\xb8", `中\xe4\xb8`},
	{"overlong slash", "\xc0\xaf", `\xc0\xaf`},
	{"surrogate", "\xed\xa0\x80", `\xed\xa0\x80`},
	{"replacement character", "\ufffd\xff", "\ufffd" + `\xff`},
	{"bidi override", "a\u202etxt.exe", `a\u202etxt.exe`},
	{"bidi isolates", "\u2066\u2069\u200e\u200f\u061c", `\u2066\u2069\u200e\u200f\u061c`},
	{"line separators", "\u2028\u2029", `\u2028\u2029`},
	{"byte order mark", "\ufeffa", `\ufeffa`},
	{"soft hyphen", "a\u00adb", `a\u00adb`},
	{"no-break and ideographic space", "a\u00a0b\u3000", `a\u00a0b\u3000`},
	{"zero width space, joiner", "a\u200bb\u200dc", `a\u200bb\u200dc`},
	{"emoji family", "👩\u200d👧", "👩" + `\u200d` + "👧"},
	{"emoji presentation", "❤\ufe0f", "❤" + `\ufe0f`},
	{"variation selector supplement", "a\U000e0100", `a\U000e0100`},
	{"tag", "\U000e0041", `\U000e0041`},
	{"fillers", "\u3164\u115f\uffa0\u034f\u2800", `\u3164\u115f\uffa0\u034f\u2800`},
	{"private use", "\ue0b0", `\ue0b0`},
	{"unassigned", "\u0378\U000e01f0", `\u0378\U000e01f0`},
	{"mark on a letter", "e\u0301", "e\u0301"},
	{"two marks", "e\u0301\u0323", "e\u0301\u0323"},
	{"mark at the start", "\u0301a", `\u0301a`},
	{"mark on a space", " \u0301", ` \u0301`},
	{"mark on an escape", "\n\u0301", `\n\u0301`},
	{"Korean in letters", "\u1112\u1161\u11ab", "\u1112\u1161\u11ab"},
}

func TestAppendEscaped(t *testing.T) {
	for _, c := range escapes {
		got := AppendEscaped([]byte("> "), []byte(c.in))
		if string(got) != "> "+c.want {
			t.Errorf("%s: AppendEscaped(%q) = %q, want %q", c.name, c.in, got[2:], c.want)
		}
	}
}

func TestUnescapeErrors(t *testing.T) {
	for _, s := range []string{`\`, `a\`, `\x`, `\x1`, `\xg1`, `\u12`, `\ud800`, `\U00110000`, `\Uffffffff`, `\q`, `\u{41}`, `\x+1`} {
		if got, err := Unescape([]byte(s)); err == nil {
			t.Errorf("Unescape(%q) = %q, want an error", s, got)
		}
	}
}

func FuzzEscape(f *testing.F) {
	for _, c := range escapes {
		f.Add([]byte(c.in))
	}
	f.Fuzz(func(t *testing.T, s []byte) {
		escaped := AppendEscaped(nil, s)
		if !utf8.Valid(escaped) {
			t.Fatalf("AppendEscaped(%q) = %q is not UTF-8", s, escaped)
		}
		base := false
		for _, r := range string(escaped) {
			if r != '\\' && !shown(r, base) {
				t.Fatalf("AppendEscaped(%q) = %q shows %U", s, escaped, r)
			}
			base = r != ' '
		}
		back, err := Unescape(escaped)
		if err != nil || !bytes.Equal(back, s) {
			t.Fatalf("Unescape(%q) = %q, %v, want %q", escaped, back, err, s)
		}
	})
}

func BenchmarkAppendEscaped(b *testing.B) {
	for _, c := range []struct{ name, text string }{
		{"plain", "/usr/lib/x86_64-linux-gnu/libc.so.6"},
		{"han", "/home/中文/文件名"},
		{"hostile", "\x1b[1A\x1b[2K\u202e\xff\n"},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			text, dst := []byte(c.text), make([]byte, 0, 256)
			for b.Loop() {
				dst = AppendEscaped(dst[:0], text)
			}
		})
	}
}
