package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A module is a kernel module, ready for init_module(2).
type module struct {
	Name string
	Data []byte // ELF, not compressed
}

// loadModules reads the modules named, and those they depend on, from a
// directory such as /lib/modules/VERSION, each after what it depends on.
// Modules that are built into the kernel are left out.
//
// Dependencies are read from the modules themselves: packages don't hold a
// modules.dep, which depmod writes when they are installed.
func loadModules(ctx context.Context, dir string, names []string) ([]module, error) {
	files, err := moduleFiles(dir)
	if err != nil {
		return nil, err
	}
	isBuiltin, err := builtinModules(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	names = present(names, func(name string) bool { return files[name] != "" })
	data := map[string][]byte{}
	order, err := moduleOrder(names, func(name string) (deps []string, load bool, err error) {
		path, ok := files[name]
		if !ok {
			if isBuiltin[name] {
				return nil, false, nil
			}
			return nil, false, fmt.Errorf("no module %s in %s, and it is not known to be built in", name, dir)
		}
		ko, err := readModule(ctx, path)
		if err != nil {
			return nil, false, err
		}
		data[name] = ko
		deps, err = moduleDepends(ko)
		if err != nil {
			return nil, false, fmt.Errorf("%s: %w", path, err)
		}
		return deps, true, nil
	})
	if err != nil {
		return nil, err
	}
	var modules []module
	for _, name := range order {
		modules = append(modules, module{Name: name, Data: data[name]})
	}
	return modules, nil
}

// present takes the mark of those that need not be there off the names, and leaves out
// those that are not.
func present(names []string, have func(name string) bool) []string {
	var left []string
	for _, name := range names {
		name, optional := strings.CutSuffix(name, "?")
		if !optional || have(moduleName(name)) {
			left = append(left, name)
		}
	}
	return left
}

// moduleOrder returns the modules named and all that they depend on, each after
// its dependencies and once. lookup gives a module's dependencies, and whether
// it must be loaded at all.
func moduleOrder(names []string, lookup func(name string) (deps []string, load bool, err error)) ([]string, error) {
	var order []string
	visited := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		name = moduleName(name)
		if visited[name] {
			return nil
		}
		visited[name] = true
		deps, load, err := lookup(name)
		if err != nil {
			return err
		}
		for _, dep := range deps {
			if err := visit(dep); err != nil {
				return fmt.Errorf("needed by %s: %w", name, err)
			}
		}
		if load {
			order = append(order, name)
		}
		return nil
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// moduleName returns the name of the module in a file, or of a module that is
// spelled with dashes, as the kernel knows it: crc32c-intel.ko.xz is
// crc32c_intel.
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// moduleFiles maps the names of a directory's modules to their paths.
func moduleFiles(dir string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(filepath.Join(dir, "kernel"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && strings.Contains(e.Name(), ".ko") {
			files[moduleName(path)] = path
		}
		return err
	})
	return files, err
}

// builtinModules returns the names in a modules.builtin file. Debian's packages
// since 6.19 have none, and then a built-in module that is asked for by name is
// not found. Modules don't depend on built-in ones by name, so they load anyhow.
func builtinModules(path string) (map[string]bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := parseBuiltin(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return names, nil
}

// parseBuiltin returns the names of the modules in a modules.builtin file.
func parseBuiltin(r io.Reader) (map[string]bool, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, path := range strings.Fields(string(text)) {
		names[moduleName(path)] = true
	}
	return names, nil
}

// readModule returns a module's file, decompressed.
func readModule(ctx context.Context, path string) ([]byte, error) {
	switch filepath.Ext(path) {
	case ".xz":
		return decompress(ctx, path, "xz", "xz-utils")
	case ".zst":
		return decompress(ctx, path, "zstd", "zstd")
	case ".gz":
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, fmt.Errorf("decompress %s: %w", path, err)
		}
		return io.ReadAll(z)
	}
	return os.ReadFile(path)
}

// decompress has a program, of the Debian package named, decompress a file.
func decompress(ctx context.Context, path, program, pkg string) ([]byte, error) {
	data, err := command(ctx, program, "-qdc", path)
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("decompress %s: %s is missing: install it (on Debian and Ubuntu: apt-get install %s)", path, program, pkg)
	}
	return data, err
}

// moduleDepends returns the names of the modules that a module needs.
func moduleDepends(ko []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(ko))
	if err != nil {
		return nil, fmt.Errorf("read module: %w", err)
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no section .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("read .modinfo: %w", err)
	}
	return parseModinfo(info), nil
}

// parseModinfo returns the dependencies in a .modinfo section, which is a row
// of NUL-terminated key=value strings.
func parseModinfo(info []byte) []string {
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := bytes.CutPrefix(entry, []byte("depends=")); ok {
			return slices.DeleteFunc(strings.Split(string(list), ","), func(s string) bool { return s == "" })
		}
	}
	return nil
}
