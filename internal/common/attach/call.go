package attach

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// A program in the section raw_tp/call is attached to nothing: the tool calls it,
// so that something is done in the kernel when the tool wants it done. Its name
// ends in calledSuffix.
const (
	calledTarget = "call"
	calledSuffix = "_call"
)

// called reports whether p is such a program.
func called(p *ebpf.ProgramSpec) bool {
	return p.Type == ebpf.RawTracepoint && p.AttachTo == calledTarget
}

// Call runs a program that is attached to nothing, with these arguments, and gives
// what it returns. A program that another task was preempted in on this CPU is not
// run, and gives 0.
func (s *Set) Call(program string, args ...uint64) (uint32, error) {
	p := s.Programs[program]
	if p == nil {
		return 0, fmt.Errorf("call %s: it is not loaded", program)
	}
	result, err := p.Run(&ebpf.RunOptions{Context: args})
	if err != nil {
		return 0, fmt.Errorf("call %s: %w", program, err)
	}
	return result, nil
}
