package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// An emulated guest shares its host's CPUs with another one, and at times stands still for
// seconds: then a test of the thousands may find what no machine would show. So those that
// failed are run again, twice. What passes both times is unstable: one such test in all doesn't fail the
// run, and is written last, with all it said, for somebody to find out why.
const (
	timesAgain = 2
	// Where more of one kernel's tests fail, it is no accident.
	mostAgain = 3
)

// again runs what failed on a kernel once more, in a guest of its own each time.
func (r *runner) again(ctx context.Context, run *kernelRun, img image, packages []testPackage, b binaries) {
	pattern, some, binaries := worthAgain(run, packages, b)
	if pattern == "" {
		return
	}
	var seconds [][]result
	for n := range timesAgain {
		r.logf("%s: running again what failed: %s", run.Kernel.Name, pattern)
		second := kernelRun{Kernel: run.Kernel}
		job := guestJob{log: fmt.Sprintf("%s-again%d", run.Kernel.Name, n+1), run: pattern, packages: some, binaries: binaries}
		if err := r.guest(ctx, &second, img, job); err != nil {
			r.logf("%s: %v", run.Kernel.Name, err)
			return
		}
		seconds = append(seconds, second.Results)
	}
	for i := range run.Results {
		run.Results[i].settle(seconds)
	}
}

// worthAgain gives the tests that failed, their packages and what runs them; or "", if none is to be
// run again.
func worthAgain(run *kernelRun, packages []testPackage, b binaries) (pattern string, some []testPackage, _ binaries) {
	part := binaries{Init: b.Init}
	if run.Failure != nil {
		return "", nil, part
	}
	var tests []string
	n := 0
	for _, res := range run.Results {
		if res.Verdict != failed {
			continue
		}
		i := slices.IndexFunc(packages, func(p testPackage) bool { return p.ImportPath == res.Package })
		if n++; n > mostAgain || res.Test == "" || i < 0 {
			return "", nil, part
		}
		test, _, _ := strings.Cut(res.Test, "/")
		if !slices.Contains(tests, test) {
			tests = append(tests, test)
		}
		if !slices.Contains(part.Tests, b.Tests[i]) {
			some, part.Tests = append(some, packages[i]), append(part.Tests, b.Tests[i])
		}
	}
	if n == 0 {
		return "", nil, part
	}
	for i, test := range tests {
		tests[i] = regexp.QuoteMeta(test)
	}
	return "^(" + strings.Join(tests, "|") + ")$", some, part
}

// settle makes a failure that did not come again what it is.
func (r *result) settle(seconds [][]result) {
	if r.Verdict != failed {
		return
	}
	for _, second := range seconds {
		ran := false
		for _, s := range second {
			if s.Package != r.Package || s.Test != r.Test && !strings.HasPrefix(s.Test, r.Test+"/") && s.Test != "" {
				continue
			}
			if s.Verdict == failed {
				r.Output += "(and it failed again)\n"
				return
			}
			ran = ran || s.Verdict == passed
		}
		if !ran {
			return
		}
	}
	r.Verdict = unstable
	r.Output += fmt.Sprintf("(it passed %d times when it was run again)\n", len(seconds))
}
