package command

import (
	"strings"

	"golang.org/x/sys/unix"
)

// defaultPath is where a command is looked for when PATH is not set, as in
// execvp(3).
const defaultPath = "/bin:/usr/bin"

// search finds the program file of a command as a shell does: a name with a
// slash is a path, any other is looked for in the directories of PATH, of which
// an empty one is the working directory. The error is ENOENT or ENOTDIR when
// there is no such file, EISDIR for a directory and EACCES for a file without
// the right to execute it.
func search(name string, lookupEnv func(string) (string, bool)) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(name)
	}
	if name == "" {
		return "", unix.ENOENT
	}
	path, ok := lookupEnv("PATH")
	if !ok {
		path = defaultPath
	}
	found := unix.ENOENT
	for dir := range strings.SplitSeq(path, ":") {
		file := "./" + name
		if dir != "" {
			file = dir + "/" + name
		}
		if executable(file) == nil {
			return file, nil
		}
		if isFile(file) {
			// A shell goes on, and says so if no later directory has it.
			found = unix.EACCES
		}
	}
	return "", found
}

// executable returns nil for a file that the process has the right to execute.
// It opens no file.
func executable(file string) error {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	// For the effective identity, as execve decides.
	return unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS)
}

// isFile tells a file from a directory and from what the process can't see.
func isFile(file string) bool {
	var st unix.Stat_t
	return unix.Stat(file, &st) == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR
}
