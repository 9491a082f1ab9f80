package main

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/gobcc/gobcc/internal/cmd/kernels/plan"
)

// A guest is what goes into one guest's memory disk.
type guest struct {
	Kernel   string
	Init     string   // path of the init program
	Modules  []module // in loading order
	Packages []testPackage
	Binaries []string // paths of the packages' test binaries
	Run      string   // regular expression of tests
	Short    bool     // what is the same on all kernels is not tested
	Seconds  int      // time limit, from boot to the last test
}

// writeInitrd writes the guest's memory disk, a gzipped cpio archive, to a file.
func writeInitrd(name string, g guest) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := bufio.NewWriterSize(f, 1<<16)
	// Unpacking takes the emulated processor long, whatever the level.
	z, err := gzip.NewWriterLevel(buf, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if err := fillInitrd(newCpioWriter(z), g); err != nil {
		return err
	}
	return errors.Join(z.Close(), buf.Flush())
}

func fillInitrd(c *cpioWriter, g guest) error {
	for _, dir := range []string{"bin", "dev", "etc", "proc", "sys", "run"} {
		c.Dir(dir, 0o755)
	}
	c.Dir("root", 0o700)
	c.Dir("tmp", 0o1777)
	// The kernel opens it for init before init can mount devtmpfs.
	c.CharDevice("dev/console", 0o600, 5, 1)
	c.File("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"))
	c.File("etc/group", 0o644, []byte("root:x:0:\nnogroup:x:65534:\n"))
	c.File("etc/hosts", 0o644, []byte("127.0.0.1\tlocalhost gobcc\n::1\tlocalhost\n"))

	if err := addFile(c, "init", g.Init); err != nil {
		return err
	}
	p := plan.Plan{Kernel: g.Kernel, Run: g.Run, Short: g.Short, Seconds: g.Seconds}
	for _, m := range g.Modules {
		file := path.Join("modules", m.Name+".ko")
		c.File(file, 0o644, m.Data)
		p.Modules = append(p.Modules, "/"+file)
	}
	for i, pkg := range g.Packages {
		dir := guestDir(pkg)
		binary := path.Join(dir, path.Base(pkg.ImportPath)+".test")
		c.Dir(dir, 0o755)
		if err := addFile(c, binary, g.Binaries[i]); err != nil {
			return err
		}
		if err := addTestdata(c, dir, pkg.Dir); err != nil {
			return err
		}
		p.Tests = append(p.Tests, plan.Test{Package: pkg.ImportPath, Dir: dir, Binary: binary})
	}
	text, err := json.MarshalIndent(p, "", "\t")
	if err != nil {
		return err
	}
	c.File(plan.Path, 0o644, text)
	return c.Close()
}

// addFile adds a program of the host's.
func addFile(c *cpioWriter, name, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	c.File(name, 0o755, data)
	return nil
}

// addTestdata adds a package's testdata directory, if it has one.
func addTestdata(c *cpioWriter, to, packageDir string) error {
	from := filepath.Join(packageDir, "testdata")
	if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return filepath.WalkDir(from, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(packageDir, name)
		if err != nil {
			return err
		}
		return addFile(c, path.Join(to, filepath.ToSlash(rel)), name)
	})
}
