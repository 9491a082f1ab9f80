package output

import (
	"testing"
	"unicode"
)

func TestWidth(t *testing.T) {
	for _, c := range []struct {
		text string
		want int
	}{
		{"", 0},
		{"bash", 4},
		{"é", 1},
		{"e\u0301", 1},
		{"中文", 4},
		{"ｱ", 1}, // halfwidth katakana
		{"Ａ", 2}, // fullwidth letter
		{"한글", 4},
		{"\u1112\u1161\u11ab", 2}, // one syllable of three letters
		{"👩", 2},
		{"✓", 1},
		{"☎", 1},
		{"⌚", 2},
		{"𠀀", 2},
		{"\ufffd", 1},
		{`\u202e`, 6},
	} {
		if got := Width([]byte(c.text)); got != c.want {
			t.Errorf("Width(%q) = %d, want %d", c.text, got, c.want)
		}
	}
}

func TestWideRanges(t *testing.T) {
	for i, w := range wideRanges {
		if w.first > w.last || i > 0 && w.first <= wideRanges[i-1].last {
			t.Errorf("range %d, %U to %U, is out of order", i, w.first, w.last)
		}
	}
	// Every ideograph is wide, and no alphabet is.
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if unicode.Is(unicode.Unified_Ideograph, r) && !wide(r) {
			t.Errorf("%U is an ideograph, but not wide", r)
		}
		if unicode.In(r, unicode.Latin, unicode.Greek, unicode.Cyrillic, unicode.Arabic) && wide(r) && (r < 0xff00 || r > 0xffef) {
			t.Errorf("%U is wide", r)
		}
	}
}

func TestAppendPadded(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"bash", 6, "bash  "},
		{"bash", 4, "bash"},
		{"bash", 2, "bash"},
		{"bash", 0, "bash"},
		{"", 3, "   "},
		{"中", 4, "中  "},
		{"a\n", 6, `a\n   `},
		{"e\u0301", 3, "e\u0301  "},
	} {
		if got := AppendPadded([]byte("| "), []byte(c.text), c.width); string(got) != "| "+c.want {
			t.Errorf("AppendPadded(%q, %d) = %q, want %q", c.text, c.width, got[2:], c.want)
		}
	}
}

func TestPad(t *testing.T) {
	row := []byte("1 ")
	start := len(row)
	row = append(row, "O_RDONLY"...)
	row = append(row, "|O_SYNC"...)
	if got, want := string(Pad(row, start, 18)), "1 O_RDONLY|O_SYNC   "; got != want {
		t.Errorf("Pad = %q, want %q", got, want)
	}
}
