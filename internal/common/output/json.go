package output

import (
	"encoding/base64"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Object writes one JSON object as a line of JSON Lines:
//
//	o := output.Begin(row)
//	o.Time("time", ns)
//	o.Int("pid", 1)
//	o.Str("path", path)
//	row = o.End()
//
// Keys are literals of ours: they are written as they are. Inside an array
// opened by [Object.Array] keys are left out; pass "".
type Object struct {
	buf     []byte
	closers [maxDepth]byte // what closes each open object or array
	depth   int
	comma   bool // a value came before at this level
}

// maxDepth is how deep objects and arrays nest, the outermost included. Deeper
// is a mistake in the caller and panics.
const maxDepth = 8

// Begin starts an object at the end of dst.
func Begin(dst []byte) Object {
	o := Object{buf: append(dst, '{'), depth: 1}
	o.closers[0] = '}'
	return o
}

// End closes what is open, appends a newline and gives the buffer back.
func (o *Object) End() []byte {
	for o.depth > 0 {
		o.Close()
	}
	return append(o.buf, '\n')
}

// Object opens an object inside this one; [Object.Close] ends it.
func (o *Object) Object(key string) { o.open(key, '{', '}') }

// Array opens an array; [Object.Close] ends it.
func (o *Object) Array(key string) { o.open(key, '[', ']') }

func (o *Object) open(key string, opener, closer byte) {
	o.key(key)
	o.buf = append(o.buf, opener)
	o.closers[o.depth] = closer
	o.depth++
	o.comma = false
}

// Close ends the innermost object or array.
func (o *Object) Close() {
	o.depth--
	o.buf = append(o.buf, o.closers[o.depth])
	o.comma = true
}

// Str writes untrusted bytes as a string. JSON strings are Unicode: a byte that
// is not valid UTF-8 becomes U+FFFD, and then, only then, a second key, with
// "_bytes" after key, holds the exact bytes in base64. Inside an array there is
// no second key; use [Object.Strings].
func (o *Object) Str(key string, s []byte) {
	o.key(key)
	var exact bool
	o.buf, exact = appendJSON(o.buf, s)
	if exact || o.inArray() {
		return
	}
	o.bytesKey(key)
	o.base64(s)
}

// String is [Object.Str] for a Go string of ours; there is no second key.
func (o *Object) String(key, s string) {
	o.key(key)
	o.buf, _ = appendJSON(o.buf, s)
}

// Strings writes an array of untrusted strings. If a byte of any is not valid
// UTF-8, an array of the same length under key and "_bytes" holds the exact
// bytes of those strings in base64, and null for the others.
func (o *Object) Strings(key string, list [][]byte) {
	o.Array(key)
	allExact := true
	for _, s := range list {
		o.key("")
		var exact bool
		o.buf, exact = appendJSON(o.buf, s)
		allExact = allExact && exact
	}
	o.Close()
	if allExact || o.inArray() {
		return
	}
	o.bytesKey(key)
	o.buf = append(o.buf, '[')
	for i, s := range list {
		if i > 0 {
			o.buf = append(o.buf, ',')
		}
		if utf8.Valid(s) {
			o.buf = append(o.buf, "null"...)
		} else {
			o.base64(s)
		}
	}
	o.buf = append(o.buf, ']')
}

// Int writes a number.
func (o *Object) Int(key string, v int64) {
	o.key(key)
	o.buf = strconv.AppendInt(o.buf, v, 10)
}

// Uint writes a number that needs all 64 bits.
func (o *Object) Uint(key string, v uint64) {
	o.key(key)
	o.buf = strconv.AppendUint(o.buf, v, 10)
}

// Bool writes true or false.
func (o *Object) Bool(key string, v bool) {
	o.key(key)
	o.buf = strconv.AppendBool(o.buf, v)
}

// Null writes null.
func (o *Object) Null(key string) {
	o.key(key)
	o.buf = append(o.buf, "null"...)
}

// Time writes an instant, in nanoseconds since 1970 in UTC, as [AppendTime]
// does.
func (o *Object) Time(key string, unixNanos int64) {
	o.key(key)
	o.buf = append(o.buf, '"')
	o.buf = AppendTime(o.buf, unixNanos)
	o.buf = append(o.buf, '"')
}

func (o *Object) inArray() bool { return o.closers[o.depth-1] == ']' }

func (o *Object) key(key string) {
	if o.comma {
		o.buf = append(o.buf, ',')
	}
	o.comma = true
	if o.inArray() {
		return
	}
	o.buf = append(o.buf, '"')
	o.buf = append(o.buf, key...)
	o.buf = append(o.buf, '"', ':')
}

func (o *Object) bytesKey(key string) {
	o.buf = append(o.buf, ',', '"')
	o.buf = append(o.buf, key...)
	o.buf = append(o.buf, `_bytes":`...)
}

func (o *Object) base64(s []byte) {
	o.buf = append(o.buf, '"')
	o.buf = base64.StdEncoding.AppendEncode(o.buf, s)
	o.buf = append(o.buf, '"')
}

// appendJSON appends s as a JSON string and reports whether it is exact: false
// when U+FFFD stands for a byte that is not valid UTF-8. It escapes what
// [AppendEscaped] escapes, not only what JSON demands, so that a line of JSON
// does no harm on a terminal either.
func appendJSON[T string | []byte](dst []byte, s T) (_ []byte, exact bool) {
	exact = true
	dst = append(dst, '"')
	base := false
	for i := 0; i < len(s); {
		start := i
		for i < len(s) && s[i] >= ' ' && s[i] <= '~' && s[i] != '"' && s[i] != '\\' {
			i++
		}
		if i > start {
			dst = append(dst, s[start:i]...)
			base = s[i-1] != ' '
			continue
		}
		r, n := decodeRune(s, i)
		i += n
		switch {
		case r == utf8.RuneError && n == 1:
			dst = append(dst, "\ufffd"...)
			exact = false
			base = true
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
			base = true
		case r == '\n':
			dst = append(dst, '\\', 'n')
			base = false
		case r == '\t':
			dst = append(dst, '\\', 't')
			base = false
		case r == '\r':
			dst = append(dst, '\\', 'r')
			base = false
		case shown(r, base):
			dst = utf8.AppendRune(dst, r)
			base = true
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			dst = AppendHex(append(dst, '\\', 'u'), uint64(high), 4)
			dst = AppendHex(append(dst, '\\', 'u'), uint64(low), 4)
			base = false
		default:
			dst = AppendHex(append(dst, '\\', 'u'), uint64(r), 4)
			base = false
		}
	}
	return append(dst, '"'), exact
}

// decodeRune decodes the rune at s[i]. At most four bytes are copied, so that a
// string needs no conversion.
func decodeRune[T string | []byte](s T, i int) (rune, int) {
	var buf [utf8.UTFMax]byte
	n := copy(buf[:], s[i:min(i+utf8.UTFMax, len(s))])
	return utf8.DecodeRune(buf[:n])
}
