package output

import (
	"fmt"
	"strconv"
	"unicode"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// AppendEscaped appends s so that it shows on one line, moves no cursor, hides
// nothing and can be read back exactly by [Unescape].
//
// A character that leaves its own mark on the screen is printed as it is. The
// rest is escaped, in forms that bash's $'...', Go and Python read too:
//
//	\n \t \r \\   newline, tab, carriage return, backslash
//	\xHH          one byte: any other C0 control, DEL, or a byte that is not
//	              part of valid UTF-8
//	\uHHHH        one code point, always four digits
//	\UHHHHHHHH    one code point above U+FFFF, always eight digits
//
// Escaped code points are the C1 controls, unassigned and private ones, spaces
// other than the ASCII space, and all that are invisible: format and
// bidirectional controls, line separators, variation selectors, fillers.
// Zero width joiners are among them although emoji use them: two names that
// differ only in a joiner look the same, and someone looking for the file that
// a program could not find must see the difference. An emoji built of several
// is shown as its parts.
//
// A combining mark is printed only after something in s that it can combine
// with; else it would change the column separator before it.
func AppendEscaped(dst, s []byte) []byte {
	base := false
	for len(s) > 0 {
		if n := plainText(s); n > 0 {
			dst = append(dst, s[:n]...)
			base = s[n-1] != ' '
			s = s[n:]
			continue
		}
		r, n := utf8.DecodeRune(s)
		switch {
		case r == utf8.RuneError && n == 1:
			dst = appendHexByte(dst, s[0])
			base = false
		case shown(r, base):
			dst = append(dst, s[:n]...)
			base = true
		default:
			dst = appendEscapedRune(dst, r)
			base = false
		}
		s = s[n:]
	}
	return dst
}

func appendEscapedRune(dst []byte, r rune) []byte {
	switch {
	case r == '\n':
		return append(dst, `\n`...)
	case r == '\t':
		return append(dst, `\t`...)
	case r == '\r':
		return append(dst, `\r`...)
	case r == '\\':
		return append(dst, `\\`...)
	case r < utf8.RuneSelf:
		return appendHexByte(dst, byte(r))
	case r <= 0xffff:
		return AppendHex(append(dst, `\u`...), uint64(r), 4)
	default:
		return AppendHex(append(dst, `\U`...), uint64(r), 8)
	}
}

func appendHexByte(dst []byte, b byte) []byte {
	return append(dst, '\\', 'x', hexDigits[b>>4], hexDigits[b&15])
}

// plainText gives how many bytes at the start of s are printable ASCII other
// than the backslash: nearly all of nearly every name.
func plainText(s []byte) int {
	for i, c := range s {
		if c < ' ' || c > '~' || c == '\\' {
			return i
		}
	}
	return len(s)
}

// shown reports whether r is printed as itself. base tells whether a printed
// character that is not a space comes directly before it.
func shown(r rune, base bool) bool {
	// IsPrint holds for letters, marks, numbers, punctuation, symbols and the
	// ASCII space. A few of these are blank or invisible all the same.
	if !strconv.IsPrint(r) || r == '\\' || r == brailleBlank ||
		unicode.In(r, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point) {
		return false
	}
	return base || !combines(r)
}

const brailleBlank = '\u2800'

// combines reports whether r is drawn into the cell of the character before it.
func combines(r rune) bool {
	switch {
	case r < 0x300:
		return false
	case r >= 0x1160 && r <= 0x11ff, r >= 0xd7b0 && r <= 0xd7ff:
		// The vowels and finals of Korean syllables spelled out in letters, as
		// file names from macOS are.
		return true
	}
	return unicode.In(r, unicode.Mn, unicode.Me)
}

// Unescape gives the bytes that [AppendEscaped] was given. It fails on a
// backslash that begins none of the forms that AppendEscaped writes.
func Unescape(s []byte) ([]byte, error) {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			out = append(out, s[i])
			i++
			continue
		}
		if i+1 == len(s) {
			return nil, fmt.Errorf("unescape: backslash at the end")
		}
		digits := 0
		switch s[i+1] {
		case 'n':
			out = append(out, '\n')
		case 't':
			out = append(out, '\t')
		case 'r':
			out = append(out, '\r')
		case '\\':
			out = append(out, '\\')
		case 'x':
			digits = 2
		case 'u':
			digits = 4
		case 'U':
			digits = 8
		default:
			return nil, fmt.Errorf("unescape: unknown escape %q at byte %d", s[i:i+2], i)
		}
		end := i + 2 + digits
		if digits > 0 {
			if end > len(s) {
				return nil, fmt.Errorf("unescape: escape at byte %d is cut short", i)
			}
			v, err := strconv.ParseUint(string(s[i+2:end]), 16, 32)
			if err != nil {
				return nil, fmt.Errorf("unescape: %q at byte %d is not a hexadecimal escape", s[i:end], i)
			}
			switch {
			case digits == 2:
				out = append(out, byte(v))
			case v > unicode.MaxRune || !utf8.ValidRune(rune(v)):
				return nil, fmt.Errorf("unescape: %q at byte %d is not a code point", s[i:end], i)
			default:
				out = utf8.AppendRune(out, rune(v))
			}
		}
		i = end
	}
	return out, nil
}
