package attach

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/diagnose"
)

// rootInode is the inode of the machine's own root of the cgroups. A container
// is shown another directory as the root.
const rootInode = 1

// attachCgroup attaches a program to the root of the version 2 cgroups, where it
// sees the sockets of all processes, also where their controllers are still those
// of version 1.
func attachCgroup(spec *ebpf.ProgramSpec, prog *ebpf.Program) (link.Link, error) {
	root, _, err := cgroupRoot()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return link.AttachRawLink(link.RawLinkOptions{Target: int(root.Fd()), Program: prog, Attach: spec.AttachType})
}

// wholeMachine reports whether such a program would see the sockets of all
// processes, and not only those of a container.
func wholeMachine() bool {
	root, whole, err := cgroupRoot()
	if err != nil {
		return false
	}
	root.Close()
	return whole
}

// cgroupRoot opens the root of the version 2 cgroups. whole is false if it is only
// that of the container that this process is in.
func cgroupRoot() (root *os.File, whole bool, err error) {
	var widest *os.File
	for _, open := range []func() (*os.File, error){openMounted, openOfInit, mountCgroups, mountCgroupsOfInit} {
		dir, openErr := open()
		if openErr != nil {
			err = errors.Join(err, openErr)
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(int(dir.Fd()), &st) == nil && st.Ino == rootInode {
			if widest != nil {
				widest.Close()
			}
			return dir, true, nil
		}
		if widest != nil {
			dir.Close()
			continue
		}
		widest = dir
	}
	if widest != nil {
		return widest, false, nil
	}
	return nil, false, noCgroups(err)
}

func noCgroups(err error) error {
	r := &diagnose.Refusal{
		Tried: "open the root of the cgroups", Err: err,
		Missing: "version 2 of the cgroups is not mounted here, and can't be mounted",
		Remedy:  "mount it: mount -t cgroup2 cgroup2 /sys/fs/cgroup",
	}
	if errors.Is(err, unix.ENODEV) {
		r.Missing, r.Remedy = "this kernel was built without version 2 of the cgroups (CONFIG_CGROUPS)", ""
	}
	return r
}

// openMounted opens the root where it is mounted: not always at /sys/fs/cgroup,
// where some machines still have version 1.
func openMounted() (*os.File, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil, fmt.Errorf("find the cgroups: %w", err)
	}
	defer f.Close()
	for _, path := range cgroupMounts(f) {
		if dir, err := openCgroupDir(path); err == nil {
			return dir, nil
		}
	}
	return nil, errors.New("no version 2 cgroups are mounted here")
}

// cgroupMounts finds the mounts of version 2 in the format of /proc/PID/mounts.
func cgroupMounts(mounts io.Reader) []string {
	var paths []string
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 2 && fields[2] == "cgroup2" {
			paths = append(paths, strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[1]))
		}
	}
	return paths
}

// openOfInit opens the root as the machine's first process has it mounted: a
// container that is shown the machine's processes can see it there.
func openOfInit() (*os.File, error) {
	dir, err := openCgroupDir("/proc/1/root/sys/fs/cgroup")
	if err != nil {
		dir, err = openCgroupDir("/proc/1/root/sys/fs/cgroup/unified")
	}
	return dir, err
}

func openCgroupDir(path string) (*os.File, error) {
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &fs); err != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		dir.Close()
		return nil, fmt.Errorf("%s does not have version 2 of the cgroups", path)
	}
	return dir, nil
}

// mountCgroups mounts the cgroups nowhere: for whoever has the descriptor.
func mountCgroups() (*os.File, error) {
	fs, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open the file system of the cgroups: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("make a file system of the cgroups: %w", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("mount the cgroups: %w", err)
	}
	return os.NewFile(uintptr(fd), "cgroup2"), nil
}

// mountCgroupsOfInit does the same in the cgroup namespace of the machine's first
// process.
func mountCgroupsOfInit() (dir *os.File, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the thread, which is in the other namespace, ends here.
		runtime.LockOSThread()
		ns, openErr := os.Open("/proc/1/ns/cgroup")
		if err = openErr; err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWCGROUP); err == nil {
			dir, err = mountCgroups()
		}
	}()
	<-done
	return dir, err
}
