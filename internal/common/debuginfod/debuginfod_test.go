package debuginfod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	there   = "00112233445566778899aabbccddeeff00112233"
	missing = "ffeeddccbbaa99887766554433221100ffeeddcc"
	large   = "0123456789abcdef0123456789abcdef01234567"
	broken  = "76543210fedcba9876543210fedcba9876543210"
)

// server counts what it is asked for.
type server struct {
	*httptest.Server
	mu    sync.Mutex
	asked map[string]int
}

func (s *server) times(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[id]
}

func serve(t *testing.T) *server {
	t.Helper()
	s := &server{asked: map[string]int{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/buildid/"), "/debuginfo")
		s.mu.Lock()
		s.asked[id]++
		s.mu.Unlock()
		reply := func(text string) {
			if _, err := io.WriteString(w, text); err != nil {
				t.Logf("the client went away: %v", err)
			}
		}
		switch id {
		case there:
			reply("an ELF file\x00\x01")
		case large:
			reply(strings.Repeat("x", 3000))
		case broken:
			// The connection ends before what was promised.
			w.Header().Set("Content-Length", "1000")
			reply("half")
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// client is one with an environment.
func client(t *testing.T, variables ...string) (*Client, error) {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("SKIPPED: no curl here")
	}
	env := map[string]string{"HOME": t.TempDir()}
	for _, v := range variables {
		name, value, _ := strings.Cut(v, "=")
		env[name] = value
	}
	// curl must not ask a proxy for this machine's own address.
	t.Setenv("no_proxy", "127.0.0.1")
	return New(func(name string) string { return env[name] })
}

func get(c *Client, id string) (string, error) {
	f, err := c.Debuginfo(context.Background(), id)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	return string(data), err
}

func TestFetch(t *testing.T) {
	empty, full := serve(t), serve(t)
	cache := t.TempDir()
	c, err := client(t, "DEBUGINFOD_URLS="+empty.URL+"/other "+full.URL+"/", "DEBUGINFOD_CACHE_PATH="+cache, "DEBUGINFOD_MAXSIZE=2000")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time from the cache
		if got, err := get(c, there); got != "an ELF file\x00\x01" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		if _, err := get(c, missing); !errors.Is(err, ErrNotFound) {
			t.Fatalf("what is missing gives %v", err)
		}
	}
	for id, n := range map[string]int{there: full.times(there), missing: full.times(missing)} {
		if n != 1 {
			t.Errorf("asked %d times for %s", n, id)
		}
	}
	if n := empty.times("/other/buildid/" + there); n != 1 {
		t.Errorf("asked the first server %d times", n)
	}
	name := filepath.Join(cache, there, "debuginfo")
	if data, err := os.ReadFile(name); string(data) != "an ELF file\x00\x01" || err != nil {
		t.Errorf("the cache has %q, %v", data, err)
	}
	// After a while what was missing is asked for again.
	old := time.Now().Add(-missed - time.Second)
	if err := os.Chtimes(filepath.Join(cache, missing, "debuginfo"), old, old); err != nil {
		t.Fatal(err)
	}
	if _, err := get(c, missing); !errors.Is(err, ErrNotFound) || full.times(missing) != 2 {
		t.Errorf("asked again %d times: %v", full.times(missing), err)
	}
	if _, err := get(c, large); !errors.Is(err, errTooLarge) {
		t.Errorf("what is too large gives %v", err)
	}
	if got, err := get(c, broken); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("what broke off gives %q, %v", got, err)
	}
	for _, id := range []string{large, broken} {
		if left, err := os.ReadDir(filepath.Join(cache, id)); err != nil || len(left) != 0 {
			t.Errorf("%s left %v, %v", id, left, err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	gone, full := serve(t), serve(t)
	gone.Close()
	c, err := client(t, "DEBUGINFOD_URLS="+gone.URL+" "+full.URL)
	if err != nil {
		t.Fatal(err)
	}
	// What the server that is there has not may be on the other: that is no ErrNotFound.
	if _, err := get(c, missing); err == nil || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), gone.URL) {
		t.Errorf("a server that is gone gives %v", err)
	}
	if got, err := get(c, there); got == "" || err != nil {
		t.Errorf("the server that is there gives %q, %v", got, err)
	}
	if c.failed[gone.URL] == nil || c.failed[full.URL] != nil {
		t.Errorf("failed: %v", c.failed)
	}
}

// TestStall has a server that takes requests and answers none.
func TestStall(t *testing.T) {
	done := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-done }))
	defer s.Close()
	defer close(done)
	c, err := client(t, "DEBUGINFOD_URLS="+s.URL, "DEBUGINFOD_TIMEOUT=1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := get(c, there); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("a server without answer gives %v", err)
	}
	c.failed = map[string]error{}
	c.stall = time.Hour
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.Debuginfo(ctx, there); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after the caller's time: %v", err)
	}
	if len(c.failed) != 0 {
		t.Errorf("the server is said to have failed: %v", c.failed)
	}
}

func TestEnvironment(t *testing.T) {
	for env, want := range map[string]string{
		"":                            "DEBUGINFOD_URLS is not set: it has the addresses of the servers to ask",
		"DEBUGINFOD_URLS= ":           "DEBUGINFOD_URLS is not set: it has the addresses of the servers to ask",
		"DEBUGINFOD_URLS=file:///etc": `DEBUGINFOD_URLS: "file:///etc" is no address of a web server`,
		"DEBUGINFOD_URLS=http://h|DEBUGINFOD_TIMEOUT=x":  `DEBUGINFOD_TIMEOUT: "x" is not a number`,
		"DEBUGINFOD_URLS=http://h|DEBUGINFOD_MAXSIZE=-1": `DEBUGINFOD_MAXSIZE: "-1" is not a number`,
		"DEBUGINFOD_URLS=http://h|HOME=":                 "set DEBUGINFOD_CACHE_PATH: there is no HOME to keep files in",
	} {
		if _, err := client(t, strings.Split(env, "|")...); fmt.Sprint(err) != want {
			t.Errorf("%s: %v", env, err)
		}
	}
	c, err := client(t, "DEBUGINFOD_URLS=https://a/ http://b", "HOME=/home/u", "DEBUGINFOD_MAXTIME=5", "DEBUGINFOD_TIMEOUT=0")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.urls) != 2 || c.urls[0] != "https://a" || c.cache != "/home/u/.cache/debuginfod_client" ||
		c.maxTime != 5*time.Second || c.stall != defaultStall || c.maxSize != defaultMaxSize {
		t.Errorf("got %+v", c)
	}
	for _, id := range []string{"", "../../etc", "0011", strings.ToUpper(there), there + "/"} {
		if _, err := c.Debuginfo(context.Background(), id); err == nil || !strings.Contains(err.Error(), "is no build id") {
			t.Errorf("build id %q gives %v", id, err)
		}
	}
}
