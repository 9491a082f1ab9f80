package output

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestObject(t *testing.T) {
	o := Begin([]byte("before\n"))
	o.Time("time", 1_790_000_000_000_000_042)
	o.Int("pid", -1)
	o.Uint("cgroup_id", 1<<64-1)
	o.Bool("ok", true)
	o.Null("error")
	o.String("via", "openat")
	o.Str("path", []byte("a\"\\\n\x1b\u0085\u202e/é👩\U000e0041"))
	o.Str("bad", []byte("a\xff"))
	o.Strings("args", [][]byte{[]byte("ls"), []byte("\xfe")})
	o.Strings("none", nil)
	o.Object("inner")
	o.Int("n", 1)
	o.Str("s", []byte("\xff"))
	o.Object("empty")
	o.Close()
	o.Close()
	o.Array("modes")
	o.Object("")
	o.String("name", "kprobe")
	o.Close()
	o.Str("", []byte("x\xff"))
	o.Strings("", [][]byte{[]byte("\xff")})
	o.Int("", 7)
	o.Close()
	o.Int("last", 2)
	want := `before
{"time":"2026-09-21T14:13:20.000000042Z","pid":-1,"cgroup_id":18446744073709551615,"ok":true,"error":null,` +
		`"via":"openat","path":"a\"\\\n\u001b\u0085\u202e/é👩\udb40\udc41",` +
		`"bad":"a` + "\ufffd" + `","bad_bytes":"Yf8=","args":["ls","` + "\ufffd" + `"],"args_bytes":[null,"/g=="],"none":[],` +
		`"inner":{"n":1,"s":"` + "\ufffd" + `","s_bytes":"/w==","empty":{}},` +
		`"modes":[{"name":"kprobe"},"x` + "\ufffd" + `",["` + "\ufffd" + `"],7],"last":2}
`
	got := string(o.End())
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !json.Valid([]byte(strings.TrimPrefix(got, "before\n"))) {
		t.Errorf("not JSON: %s", got)
	}
}

func TestObjectEndClosesAll(t *testing.T) {
	o := Begin(nil)
	o.Array("a")
	o.Object("")
	o.Int("n", 1)
	if got, want := string(o.End()), `{"a":[{"n":1}]}`+"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzJSON(f *testing.F) {
	for _, c := range escapes {
		f.Add([]byte(c.in), []byte(c.want))
	}
	f.Add([]byte(`"</script>'`), []byte("\xff\xfe"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		o := Begin(nil)
		o.Str("a", a)
		o.Strings("list", [][]byte{a, b})
		o.String("s", string(a))
		line := o.End()

		if bytes.IndexByte(line, '\n') != len(line)-1 || !utf8.Valid(line) {
			t.Fatalf("%q is not one line of UTF-8", line)
		}
		for _, r := range string(line[:len(line)-1]) {
			if r != '\\' && !shown(r, true) {
				t.Fatalf("%q shows %U", line, r)
			}
		}
		var got struct {
			A         string
			ABytes    *string `json:"a_bytes"`
			S         string
			List      []string
			ListBytes []*string `json:"list_bytes"`
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		check := func(text string, exact *string, want []byte) {
			t.Helper()
			if (exact == nil) != utf8.Valid(want) {
				t.Fatalf("%q: exact bytes given: %t, of %q", line, exact != nil, want)
			}
			if text != strings.ToValidUTF8(string(want), "\ufffd") && exact == nil {
				t.Fatalf("%q: text %q of %q", line, text, want)
			}
			if exact == nil {
				return
			}
			if raw, err := base64.StdEncoding.DecodeString(*exact); err != nil || !bytes.Equal(raw, want) {
				t.Fatalf("%q: bytes %q, %v, want %q", line, raw, err, want)
			}
		}
		check(got.A, got.ABytes, a)
		if got.S != got.A {
			t.Fatalf("String gives %q, Str %q", got.S, got.A)
		}
		exact := got.ListBytes
		if exact == nil {
			exact = make([]*string, 2)
		}
		if len(got.List) != 2 || len(exact) != 2 {
			t.Fatalf("%q: lists of %d and %d", line, len(got.List), len(exact))
		}
		check(got.List[0], exact[0], a)
		check(got.List[1], exact[1], b)
	})
}

func appendTestRow(dst, comm, path []byte) []byte {
	o := Begin(dst)
	o.Time("time", 1_790_000_000_123_456_789)
	o.Int("pid", 1234)
	o.Uint("cgroup_id", 4567)
	o.Str("comm", comm)
	o.Str("path", path)
	o.String("error", ErrnoName(2))
	return o.End()
}

func BenchmarkObject(b *testing.B) {
	b.ReportAllocs()
	dst := make([]byte, 0, 512)
	comm, path := []byte("bash"), []byte("/usr/lib/x86_64-linux-gnu/libc.so.6")
	for b.Loop() {
		dst = appendTestRow(dst[:0], comm, path)
	}
}
