// Package debuginfod fetches files of debugging information by build id from debuginfod
// servers, as elfutils' programs do and with the same cache.
//
// It leaves HTTP to the program curl, which hosts have and keep up to date with their
// certificates and proxies: to do it here would take a third of a tool's size.
package debuginfod

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// ErrNotFound tells that no server has a file.
var ErrNotFound = errors.New("no debuginfod server has it")

const (
	defaultStall   = 90 * time.Second // as elfutils has it
	defaultMaxSize = 4 << 30          // bytes
	// What no server has is asked for again after this time, as elfutils has it.
	missed = 10 * time.Minute
)

// Client fetches files. It is not for concurrent use.
type Client struct {
	urls    []string
	cache   string        // directory
	stall   time.Duration // without anything received, after which a server is given up
	maxTime time.Duration // for one file; 0 for any
	maxSize int64         // of one file, in bytes
	curl    string
	failed  map[string]error // servers that can't be reached, by URL
}

// New makes a client by what the environment says: the servers in DEBUGINFOD_URLS, which
// must be set, and elfutils' DEBUGINFOD_CACHE_PATH, DEBUGINFOD_TIMEOUT (seconds without
// progress), DEBUGINFOD_MAXTIME (seconds for a file) and DEBUGINFOD_MAXSIZE (bytes).
func New(getenv func(string) string) (*Client, error) {
	c := &Client{stall: defaultStall, maxSize: defaultMaxSize, failed: map[string]error{}}
	for url := range strings.FieldsSeq(getenv("DEBUGINFOD_URLS")) {
		if !strings.HasPrefix(url, "https://") && !strings.HasPrefix(url, "http://") {
			return nil, fmt.Errorf("DEBUGINFOD_URLS: %q is no address of a web server", url)
		}
		c.urls = append(c.urls, strings.TrimRight(url, "/"))
	}
	if len(c.urls) == 0 {
		return nil, errors.New("DEBUGINFOD_URLS is not set: it has the addresses of the servers to ask")
	}
	number := func(name string, set func(int64)) error {
		if v := getenv(name); v != "" {
			n, err := strconv.ParseInt(v, 10, 32+8)
			if err != nil || n < 0 {
				return fmt.Errorf("%s: %q is not a number", name, v)
			}
			if n > 0 {
				set(n)
			}
		}
		return nil
	}
	if err := errors.Join(
		number("DEBUGINFOD_TIMEOUT", func(n int64) { c.stall = seconds(n) }),
		number("DEBUGINFOD_MAXTIME", func(n int64) { c.maxTime = seconds(n) }),
		number("DEBUGINFOD_MAXSIZE", func(n int64) { c.maxSize = n }),
	); err != nil {
		return nil, err
	}
	switch home := getenv("HOME"); {
	case getenv("DEBUGINFOD_CACHE_PATH") != "":
		c.cache = getenv("DEBUGINFOD_CACHE_PATH")
	case getenv("XDG_CACHE_HOME") != "":
		c.cache = filepath.Join(getenv("XDG_CACHE_HOME"), "debuginfod_client")
	case home != "":
		c.cache = filepath.Join(home, ".cache", "debuginfod_client")
	default:
		return nil, errors.New("set DEBUGINFOD_CACHE_PATH: there is no HOME to keep files in")
	}
	var err error
	if c.curl, err = exec.LookPath("curl"); err != nil {
		return nil, errors.New("install curl: debuginfod servers are asked with it")
	}
	return c, nil
}

func seconds(n int64) time.Duration { return min(time.Duration(n), 1e9) * time.Second }

var buildIDs = regexp.MustCompile(`^([0-9a-f]{2}){4,64}$`)

// Debuginfo gives the file of debugging information with a build id, which is in
// hexadecimal, from the cache or from a server, by its name in the cache. It wraps
// ErrNotFound if there is none. Whether what the server gave has that build id is for the
// caller to see.
func (c *Client) Debuginfo(ctx context.Context, buildID string) (*os.File, error) {
	if !buildIDs.MatchString(buildID) {
		return nil, fmt.Errorf("fetch debugging information: %q is no build id", buildID)
	}
	f, err := c.debuginfo(ctx, buildID)
	if err != nil {
		return nil, fmt.Errorf("fetch debugging information of %s: %w", buildID, err)
	}
	return f, nil
}

func (c *Client) debuginfo(ctx context.Context, buildID string) (*os.File, error) {
	dir := filepath.Join(c.cache, buildID)
	name := filepath.Join(dir, "debuginfo")
	// An empty file notes when no server had it.
	if st, err := os.Stat(name); err == nil {
		switch {
		case st.Size() > 0:
			return os.Open(name)
		case time.Since(st.ModTime()) < missed:
			return nil, ErrNotFound
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, "debuginfo.")
	if err != nil {
		return nil, err
	}
	err = c.fetch(ctx, buildID, f)
	if err == nil || errors.Is(err, ErrNotFound) {
		err = errors.Join(err, f.Chmod(0o400), os.Rename(f.Name(), name))
	} else {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	f.Close()
	if err != nil {
		return nil, err
	}
	return os.Open(name)
}

// fetch asks the servers in turn. It leaves an empty file if none has it.
func (c *Client) fetch(ctx context.Context, buildID string, f *os.File) error {
	var errs []error
	for _, url := range c.urls {
		if err := c.failed[url]; err != nil {
			errs = append(errs, err)
			continue
		}
		err := c.get(ctx, url+"/buildid/"+buildID+"/debuginfo", f)
		if err == nil {
			return nil
		}
		if err := f.Truncate(0); err != nil {
			return err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, ErrNotFound) {
			continue
		}
		err = fmt.Errorf("%s: %w", url, err)
		errs = append(errs, err)
		if !errors.Is(err, errTooLarge) {
			// It would be waited for again with each file.
			c.failed[url] = err
		}
	}
	if len(errs) == 0 {
		return ErrNotFound
	}
	return errors.Join(errs...)
}

var errTooLarge = errors.New("the file is too large")

// get writes what is at an address into a file.
func (c *Client) get(ctx context.Context, url string, f *os.File) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stall := strconv.Itoa(int(c.stall / time.Second))
	arguments := []string{
		"--disable", // its configuration files
		"--silent", "--show-error", "--fail", "--location", "--max-redirs", "5",
		"--proto", "=http,https", "--globoff",
		"--connect-timeout", stall, "--speed-limit", "1", "--speed-time", stall,
	}
	if c.maxTime > 0 {
		arguments = append(arguments, "--max-time", strconv.Itoa(int(c.maxTime/time.Second)))
	}
	curl := exec.CommandContext(ctx, c.curl, append(arguments, "--url", url)...)
	var stderr bytes.Buffer
	curl.Stderr = &stderr
	out, err := curl.StdoutPipe()
	if err != nil {
		return err
	}
	if err := curl.Start(); err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(out, c.maxSize+1))
	if err != nil || n > c.maxSize {
		cancel()
		_ = curl.Wait() // it was killed
		if err == nil {
			err = fmt.Errorf("%w: over %d bytes, see DEBUGINFOD_MAXSIZE", errTooLarge, c.maxSize)
		}
		return err
	}
	err = curl.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil && n == 0:
		return errors.New("the file is empty")
	case err == nil:
		_, err = f.Seek(0, io.SeekStart)
		return err
	// curl tells all that servers refuse by this code, and which it was in words.
	case errors.As(err, &exit) && exit.ExitCode() == 22 && bytes.Contains(stderr.Bytes(), []byte(" 404")):
		return ErrNotFound
	}
	if message := bytes.TrimSpace(stderr.Bytes()); len(message) > 0 {
		return fmt.Errorf("%s", message)
	}
	return err
}
