package output

import (
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrnoName gives the name of a positive errno: "ENOENT" for 2. Those that the
// kernel keeps to itself, but that a tracer sees, have names too. A number that
// has none gives "E" and the number; 0, which is no error, gives "0".
func ErrnoName(n int32) string {
	if n == 0 {
		return "0"
	}
	if name, ok := otherErrno[n]; ok {
		return name
	}
	if n > 0 {
		if name := unix.ErrnoName(syscall.Errno(n)); name != "" {
			return name
		}
	}
	return "E" + strconv.Itoa(int(n))
}

// otherErrno holds what include/linux/errno.h adds for the kernel's own use,
// and the one number whose name in Go is not the one that strace, perror and
// the manual pages of system calls print.
var otherErrno = map[int32]string{
	95:  "EOPNOTSUPP",
	512: "ERESTARTSYS",
	513: "ERESTARTNOINTR",
	514: "ERESTARTNOHAND",
	515: "ENOIOCTLCMD",
	516: "ERESTART_RESTARTBLOCK",
	517: "EPROBE_DEFER",
	518: "EOPENSTALE",
	519: "ENOPARAM",
	521: "EBADHANDLE",
	522: "ENOTSYNC",
	523: "EBADCOOKIE",
	524: "ENOTSUPP",
	525: "ETOOSMALL",
	526: "ESERVERFAULT",
	527: "EBADTYPE",
	528: "EJUKEBOX",
	529: "EIOCBQUEUED",
	530: "ERECALLCONFLICT",
	531: "ENOGRACE",
}
