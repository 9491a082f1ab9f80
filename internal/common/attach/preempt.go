package attach

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// preempts reports whether the running kernel may preempt a task within its own code,
// and so within a program that it calls there. Whether it does is a matter of its boot
// parameters too.
func preempts() (bool, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return false, fmt.Errorf("ask for the kernel's version: %w", err)
	}
	return canPreempt(unix.ByteSliceToString(uts.Version[:])), nil
}

// canPreempt tells by what uname -v says: "#1 SMP PREEMPT_DYNAMIC Debian 7.0-1".
func canPreempt(version string) bool { return strings.Contains(version, "PREEMPT") }

// preemptsTracepoints reports whether such a kernel may do so in programs on tracepoints
// too. Up to 6.19 it disables preemption around them; since 7.0 they are protected by
// SRCU instead ("tracing: Guard __DECLARE_TRACE() use of __DO_TRACE_CALL() with
// SRCU-fast"), whose data is a variable of each CPU. Up to 6.12 one of this name served
// the tracepoints of idle CPUs; struct tracepoint_ext came after that.
func preemptsTracepoints(types *btf.Spec) bool {
	var data *btf.Var
	var ext *btf.Struct
	return types.TypeByName("tracepoint_srcu_srcu_data", &data) == nil && types.TypeByName("tracepoint_ext", &ext) == nil
}
