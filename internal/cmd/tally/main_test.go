package main

import (
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	for name, c := range map[string]struct {
		in, out, err string
		ci, live     bool
	}{
		"a pass, a skip and subtests": {
			in: `{"Action":"start","Package":"a"}
{"Action":"run","Package":"a","Test":"TestOne"}
{"Action":"output","Package":"a","Test":"TestOne","Output":"=== RUN   TestOne\n"}
{"Action":"output","Package":"a","Test":"TestOne","Output":"not of interest\n"}
{"Action":"pass","Package":"a","Test":"TestOne"}
{"Action":"run","Package":"a","Test":"TestTwo"}
{"Action":"run","Package":"a","Test":"TestTwo/x"}
{"Action":"pass","Package":"a","Test":"TestTwo/x"}
{"Action":"run","Package":"a","Test":"TestTwo/y"}
{"Action":"output","Package":"a","Test":"TestTwo/y","Output":"=== RUN   TestTwo/y\n"}
{"Action":"output","Package":"a","Test":"TestTwo/y","Output":"    x_test.go:1: needs root\n"}
{"Action":"skip","Package":"a","Test":"TestTwo/y"}
{"Action":"pass","Package":"a","Test":"TestTwo"}
{"Action":"output","Package":"a","Output":"ok  \ta\t0.5s\n"}
{"Action":"pass","Package":"a","Elapsed":0.5}
{"Action":"output","Package":"b","Output":"?   \tb\t[no test files]\n"}
{"Action":"skip","Package":"b"}
`,
			out: "    x_test.go:1: needs root\nok\ta\t0.50s\t3 tests\n2 passed, 0 failed, 1 skipped\n",
		},
		"a failure": {
			in: `{"Action":"run","Package":"a","Test":"TestOne"}
{"Action":"output","Package":"a","Test":"TestOne","Output":"    x_test.go:1: wrong\n"}
{"Action":"fail","Package":"a","Test":"TestOne"}
{"Action":"fail","Package":"a","Elapsed":1}
`,
			out: "    x_test.go:1: wrong\nFAIL\ta\t1.00s\t1 tests\n0 passed, 1 failed, 0 skipped\n",
			err: "1 tests failed",
		},
		"skips in CI": {
			ci: true, live: true,
			in: `{"Action":"run","Package":"a","Test":"TestOne"}
{"Action":"run","Package":"a","Test":"TestOne/kprobe"}
{"Action":"output","Package":"a","Test":"TestOne/kprobe","Output":"    x_test.go:1: SKIPPED: this kernel has no kprobe mode: this kernel was built without kprobes (CONFIG_KPROBES)\n"}
{"Action":"skip","Package":"a","Test":"TestOne/kprobe"}
{"Action":"run","Package":"a","Test":"TestOne/tracepoint"}
{"Action":"output","Package":"a","Test":"TestOne/tracepoint","Output":"    x_test.go:1: SKIPPED: this kernel has no tracepoint mode: it was built without kprobes\n"}
{"Action":"skip","Package":"a","Test":"TestOne/tracepoint"}
{"Action":"run","Package":"a","Test":"TestOne/int80_open"}
{"Action":"output","Package":"a","Test":"TestOne/int80_open","Output":"    x_test.go:1: SKIPPED: no int80 open on this machine\n"}
{"Action":"skip","Package":"a","Test":"TestOne/int80_open"}
{"Action":"pass","Package":"a","Test":"TestOne"}
{"Action":"pass","Package":"a","Elapsed":1}
`,
			out: "    x_test.go:1: SKIPPED: this kernel has no kprobe mode: this kernel was built without kprobes (CONFIG_KPROBES)\n" +
				"    x_test.go:1: SKIPPED: this kernel has no tracepoint mode: it was built without kprobes\n" +
				"    (this skip of TestOne/tracepoint is NOT EXPECTED, which is a failure in CI)\n" +
				"    x_test.go:1: SKIPPED: no int80 open on this machine\n" +
				"ok\ta\t1.00s\t3 tests\n0 passed, 1 failed, 2 skipped\n",
			err: "1 tests failed",
		},
		"a unit test's skip in CI": {
			ci: true,
			in: `{"Action":"run","Package":"a","Test":"TestOne"}
{"Action":"output","Package":"a","Test":"TestOne","Output":"    x_test.go:1: SKIPPED: no java here\n"}
{"Action":"skip","Package":"a","Test":"TestOne"}
{"Action":"pass","Package":"a","Elapsed":1}
`,
			out: "    x_test.go:1: SKIPPED: no java here\n    (this skip of TestOne is NOT EXPECTED, which is a failure in CI)\n" +
				"ok\ta\t1.00s\t1 tests\n0 passed, 1 failed, 0 skipped\n",
			err: "1 tests failed",
		},
		"a package that does not build": {
			in: `{"ImportPath":"a","Action":"build-output","Output":"x.go:1: no\n"}
{"ImportPath":"a","Action":"build-fail"}
{"Action":"output","Package":"a","Output":"FAIL\ta [build failed]\n"}
{"Action":"fail","Package":"a","FailedBuild":"a"}
`,
			out: "x.go:1: no\nFAIL\ta [build failed]\nFAIL\ta\t0.00s\t0 tests\n0 passed, 1 failed, 0 skipped\n",
			err: "1 tests failed",
		},
		"a test that ends its process": {
			in: `{"Action":"run","Package":"a","Test":"TestOne"}
{"Action":"output","Package":"a","Test":"TestOne","Output":"panic: no\n"}
{"Action":"fail","Package":"a"}
`,
			out: "panic: no\nFAIL\ta\t0.00s\t0 tests\n0 passed, 1 failed, 0 skipped\n",
			err: "1 tests failed",
		},
		"plain text and no test": {
			in:  "go: no such thing\n",
			out: "go: no such thing\n0 passed, 0 failed, 0 skipped\n",
			err: "no test ran",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			err := run(&out, strings.NewReader(c.in), may(c.ci, c.live))
			if out.String() != c.out {
				t.Errorf("printed\n%s\nwant\n%s", out.String(), c.out)
			}
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != c.err {
				t.Errorf("error %q, want %q", got, c.err)
			}
		})
	}
}
