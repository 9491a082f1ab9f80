package filter

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fileIDKernfs is the type of the file handles of a cgroup file system, whose
// ids are those that bpf_get_current_cgroup_id() gives (FILEID_KERNFS).
const fileIDKernfs = 0xfe

// openCgroup opens the directory of a version 2 cgroup, named by its path (below
// its mount point or in full) or by its id.
func openCgroup(name string) (*os.File, error) {
	root, err := cgroupRoot()
	if err != nil {
		return nil, err
	}
	if id, err := strconv.ParseUint(name, 10, 64); err == nil {
		return openCgroupID(root, id)
	}
	for _, path := range []string{name, filepath.Join(root, name)} {
		var fs unix.Statfs_t
		if err := unix.Statfs(path, &fs); err != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, fmt.Errorf("open cgroup %s: %w", path, err)
		}
		return dir, nil
	}
	return nil, fmt.Errorf("there is no version 2 cgroup %s, in full or below %s", name, root)
}

func openCgroupID(root string, id uint64) (*os.File, error) {
	mount, err := os.Open(root)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", root, err)
	}
	defer mount.Close()
	handle := unix.NewFileHandle(fileIDKernfs, binary.NativeEndian.AppendUint64(nil, id))
	fd, err := unix.OpenByHandleAt(int(mount.Fd()), handle, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if errors.Is(err, unix.ESTALE) {
		return nil, fmt.Errorf("there is no cgroup with the id %d", id)
	}
	if err != nil {
		return nil, fmt.Errorf("open the cgroup with the id %d: %w", id, err)
	}
	return os.NewFile(uintptr(fd), root), nil
}

// CgroupPath gives the path of the cgroup with an id, as /proc/PID/cgroup has it. It
// fails for one that is gone.
func CgroupPath(id uint64) (string, error) {
	root, err := cgroupRoot()
	if err != nil {
		return "", err
	}
	dir, err := openCgroupID(root, id)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
	if err != nil {
		return "", fmt.Errorf("find the path of the cgroup with the id %d: %w", id, err)
	}
	return "/" + strings.TrimPrefix(strings.TrimPrefix(path, root), "/"), nil
}

// cgroupRoot finds where the version 2 cgroups are mounted: not always at
// /sys/fs/cgroup, where some machines still have version 1.
func cgroupRoot() (string, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return "", fmt.Errorf("find the cgroups: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 2 && fields[2] == "cgroup2" {
			return fields[1], nil
		}
	}
	return "", errors.New("no version 2 cgroups are mounted here")
}
