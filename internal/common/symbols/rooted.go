package symbols

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// openInRoot opens a regular file for reading as a process sees it whose root directory
// is root. What the process has there is not to be trusted: no symbolic link leads out
// of root, and no FIFO or device is waited for.
func openInRoot(root int, path string, flags uint64) (*os.File, error) {
	fd, err := unix.Openat2(root, strings.TrimLeft(path, "/"), &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY | flags,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return nil, fmt.Errorf("open %s: not a regular file", path)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// openRoot opens a directory to resolve paths in.
func openRoot(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return fd, nil
}

// realName follows the symbolic links that a path's last part may be, so that the directory
// of the result is that of the file itself.
func realName(root int, name string) string {
	for range 16 { // links may lead in circles
		fd, err := unix.Openat2(root, strings.TrimLeft(name, "/"), &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
		})
		if err != nil {
			return name
		}
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, "", target)
		unix.Close(fd)
		switch {
		case err != nil || n <= 0: // it is no link
			return name
		case target[0] == '/':
			name = string(target[:n])
		default:
			name = name[:strings.LastIndexByte(name, '/')+1] + string(target[:n])
		}
	}
	return name
}
