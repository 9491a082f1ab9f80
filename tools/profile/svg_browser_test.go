package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"html"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"testing"
)

// flameTest does in a flame graph what users do, and writes what it finds into an
// attribute of the picture.
//
//go:embed testdata/flame_test.js
var flameTest []byte

var flameResult = regexp.MustCompile(`data-result="([^"]*)"`)

// browse opens a picture as from disk in a browser without a screen, and gives what flameTest
// found there.
func browse(t *testing.T, svg []byte, arguments ...string) map[string]any {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("SKIPPED: no chromium here")
	}
	end := []byte("</svg>\n")
	if !bytes.HasSuffix(svg, end) {
		t.Fatal("the picture has another end")
	}
	script := append([]byte("<script><![CDATA[\n"), append(flameTest, "]]></script>\n</svg>\n"...)...)
	dir := t.TempDir()
	name := filepath.Join(dir, "test.svg")
	if err := os.WriteFile(name, append(bytes.TrimSuffix(svg, end), script...), 0o644); err != nil {
		t.Fatal(err)
	}
	// Chromium's own sandbox doesn't work for root.
	c := exec.Command(chromium, append(arguments, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--user-data-dir="+filepath.Join(dir, "user"), "--window-size=1200,800", "--virtual-time-budget=5000",
		"--dump-dom", "file://"+name)...)
	c.Env = append(os.Environ(), "HOME="+dir)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("chromium: %v\n%s", err, stderr.Bytes())
	}
	found := flameResult.FindSubmatch(out)
	if found == nil {
		t.Fatalf("the script did not end: %.2000s\n%s", out, stderr.Bytes())
	}
	var result map[string]any
	if err := json.Unmarshal([]byte(html.UnescapeString(string(found[1]))), &result); err != nil {
		t.Fatal(err)
	}
	return result
}

func TestSVGInBrowser(t *testing.T) {
	const vfsRead = "vfs_read: 1,234 samples, 23.53 % (100.00 % of its caller), kernel, [kernel.kallsyms]"
	list := func(all ...any) []any { return all }
	want := map[string]any{
		"frames": 22., "visible": 22., "resetDisabled": true, "tabbable": "all", "spoken": vfsRead,
		"hover": vfsRead, "left": "",
		// Below the frame that was chosen are its callers, and there is nothing else.
		"click":      list(9., `all server _start serve operator&&(A&, "B") std::vector<int>::push_back helper;a entry_SYSCALL_64_after_hwframe`, "100%", "0%"),
		"clickFocus": "vfs_read", "resetEnabled": true, "reset": 22.,
		"search": "23.53 % of all samples (1,234) in 1 frames found", "found": "vfs_read", "enterSearch": "vfs_read",
		// What is no regular expression is looked for as it is.
		"wrong": true, "literal": "99.81 % of all samples (5,235) in 2 frames found", "cleared": list("", "", 0.),
		"keys":  list("all", "ArrowDown server", "ArrowDown _start", "ArrowUp server", "ArrowRight worker", "ArrowLeft server"),
		"enter": list(9., "all server", "100%", "0%"), "backspace": list(9., "all", "100%", "0%"), "zero": 22., "slash": "input",
		"turned": true, "turnedBack": true,
		"cut": true, "fetched": 0., "links": 0.,
	}
	for scheme, test := range map[string]struct{ setting, page string }{
		"light": {"preferredColorScheme=1", "rgb(255, 255, 255)"},
		"dark":  {"preferredColorScheme=0", "rgb(22, 25, 28)"},
	} {
		t.Run(scheme, func(t *testing.T) {
			got := browse(t, svgOf(t, testReport()), "--blink-settings="+test.setting)
			want["page"] = test.page
			for name, v := range want {
				if !reflect.DeepEqual(got[name], v) {
					t.Errorf("%s: got %v, want %v", name, got[name], v)
				}
				delete(got, name)
			}
			if len(got) > 0 {
				t.Errorf("what else there is: %v", got)
			}
		})
	}
}
