package main

import (
	"context"
	"strings"
	"testing"
)

func TestBadUsage(t *testing.T) {
	none := func(string) string { return "" }
	for _, test := range []struct{ args, says string }{
		{"-kernels 6.13", "unknown kernel \"6.13\": have 5.10, "},
		{"-run (", "-run: "},
		{"-accel fast", "-accel \"fast\""},
		{"-timeout 1s", "-timeout 1s"},
		{"-parallel 0", "-parallel 0"},
		{"-nonsense", "-nonsense"},
		{"6.12", "unexpected argument \"6.12\""},
	} {
		var stdout, stderr strings.Builder
		status := run(context.Background(), strings.Fields(test.args), none, &stdout, &stderr)
		if status != 2 || stdout.Len() > 0 || !strings.Contains(stderr.String(), test.says) {
			t.Errorf("%s: status %d, stdout %q, stderr %q, want 2 and %q", test.args, status, stdout.String(), stderr.String(), test.says)
		}
	}
}

func TestEnvironment(t *testing.T) {
	getenv := func(name string) string {
		return map[string]string{"KERNELS": "6.13"}[name]
	}
	var stdout, stderr strings.Builder
	if status := run(t.Context(), nil, getenv, &stdout, &stderr); status != 2 || !strings.Contains(stderr.String(), "6.13") {
		t.Errorf("KERNELS=6.13: status %d, stderr %q, want 2 and its name", status, stderr.String())
	}
}
