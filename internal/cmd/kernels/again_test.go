package main

import (
	"errors"
	"slices"
	"testing"
)

func TestWorthAgain(t *testing.T) {
	packages := []testPackage{{ImportPath: "a"}, {ImportPath: "b"}, {ImportPath: "c"}}
	all := binaries{Init: "init", Tests: []string{"a.test", "b.test", "c.test"}}
	fail := func(pkg, test string) result { return result{Package: pkg, Test: test, Verdict: failed} }
	for name, c := range map[string]struct {
		run     kernelRun
		pattern string
		tests   []string
	}{
		"all passed":     {run: kernelRun{Results: []result{{Package: "a", Test: "TestA", Verdict: passed}}}},
		"one":            {kernelRun{Results: []result{fail("b", "TestB/kprobe/x"), {Package: "a", Test: "TestA", Verdict: passed}}}, "^(TestB)$", []string{"b.test"}},
		"parts of one":   {kernelRun{Results: []result{fail("b", "TestB/x"), fail("b", "TestB/y")}}, "^(TestB)$", []string{"b.test"}},
		"of packages":    {kernelRun{Results: []result{fail("a", "TestA"), fail("c", "TestC/y")}}, "^(TestA|TestC)$", []string{"a.test", "c.test"}},
		"many":           {run: kernelRun{Results: []result{fail("a", "TestA"), fail("a", "TestB"), fail("a", "TestC"), fail("a", "TestD")}}},
		"a package":      {run: kernelRun{Results: []result{fail("a", ""), fail("a", "TestB")}}},
		"the guest died": {run: kernelRun{Failure: errors.New("panic"), Results: []result{fail("a", "TestA")}}},
	} {
		pattern, some, b := worthAgain(&c.run, packages, all)
		if pattern != c.pattern || pattern != "" && (!slices.Equal(b.Tests, c.tests) || len(some) != len(c.tests) || b.Init != "init") {
			t.Errorf("%s: %q, %v, %v", name, pattern, some, b)
		}
	}
}

func TestSettle(t *testing.T) {
	one := func(test string, v verdict) []result {
		return []result{{Package: "a", Test: "TestOther", Verdict: failed}, {Package: "b", Test: test, Verdict: failed}, {Package: "a", Test: test, Verdict: v}}
	}
	for name, c := range map[string]struct {
		test    string
		seconds [][]result
		want    verdict
	}{
		"passes":              {"TestA/x", [][]result{one("TestA/x", passed), one("TestA/x", passed)}, unstable},
		"fails again":         {"TestA/x", [][]result{one("TestA/x", passed), one("TestA/x", failed)}, failed},
		"did not run":         {"TestA/x", [][]result{one("TestA/x", passed), one("TestA/y", passed)}, failed},
		"is skipped":          {"TestA/x", [][]result{one("TestA/x", passed), one("TestA/x", skipped)}, failed},
		"its parts pass":      {"TestA", [][]result{one("TestA/x", passed), one("TestA/y", passed)}, unstable},
		"a part fails":        {"TestA", [][]result{one("TestA/x", passed), one("TestA/y", failed)}, failed},
		"the package crashes": {"TestA", [][]result{one("TestA", passed), {{Package: "a", Test: "TestA", Verdict: passed}, {Package: "a", Verdict: failed}}}, failed},
	} {
		r := result{Package: "a", Test: c.test, Verdict: failed}
		r.settle(c.seconds)
		if r.Verdict != c.want {
			t.Errorf("%s: %s", name, r.Verdict)
		}
	}
	pass := result{Package: "a", Test: "TestA", Verdict: passed}
	if pass.settle(nil); pass.Verdict != passed {
		t.Errorf("what passed is %s", pass.Verdict)
	}
}
