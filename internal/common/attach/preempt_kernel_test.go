package attach

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/gobcc/gobcc/internal/common/livetest"
)

func TestMain(m *testing.M) { livetest.Main(m, nil) }

// What is concluded from the kernel's types must be what a program finds.
func TestKernelPreemptsTracepoints(t *testing.T) {
	livetest.Need(t)
	cache := btf.NewCache()
	types, err := cache.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	can, err := preempts()
	if err != nil {
		t.Fatal(err)
	}
	if !can {
		t.Skip("SKIPPED: this kernel does not count what disables preemption, as it never preempts itself")
	}
	count, err := preemptCount(types, cache)
	if errors.Is(err, unix.ENOENT) {
		t.Skip("SKIPPED: this kernel does not tell where its preempt count is (CONFIG_KALLSYMS_ALL)")
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, found := preemptsTracepoints(types), count == 0; got != found {
		t.Errorf("programs on tracepoints can be preempted: %v, but the preempt count is %d in one", got, count)
	}
}

// preemptCount gives how many times preemption was disabled where a program on a
// tracepoint ran. It makes its own thread pass the tracepoint of a changed name.
func preemptCount(types *btf.Spec, cache *btf.Cache) (uint8, error) {
	load, err := loadPreemptCount(types)
	if err != nil {
		return 0, err
	}
	const unset = 0xffff
	coll, err := ebpf.NewCollectionWithOptions(&ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{"count": {
			Name: "count", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1,
			Contents: []ebpf.MapKV{{Key: uint32(0), Value: uint32(unset)}},
		}},
		Programs: map[string]*ebpf.ProgramSpec{"preempt_count": {
			Name: "preempt_count", Type: ebpf.RawTracepoint, AttachTo: "task_rename", License: "Dual BSD/GPL",
			Instructions: append(load,
				asm.LoadMapPtr(asm.R1, 0).WithReference("count"),
				asm.StoreMem(asm.RFP, -4, asm.R6, asm.Word),
				asm.StoreImm(asm.RFP, -8, 0, asm.Word),
				asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -8),
				asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -4),
				asm.Mov.Imm(asm.R4, 0), // BPF_ANY
				asm.FnMapUpdateElem.Call(),
				asm.Mov.Imm(asm.R0, 0), asm.Return(),
			),
		}},
	}, ebpf.CollectionOptions{Cache: cache, Programs: ebpf.ProgramOptions{LogDisabled: true}})
	if err != nil {
		return 0, fmt.Errorf("load a program that reads the preempt count: %w", err)
	}
	defer coll.Close()
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "task_rename", Program: coll.Programs["preempt_count"]})
	if err != nil {
		return 0, fmt.Errorf("attach a program that reads the preempt count: %w", err)
	}
	defer l.Close()
	if err := renameThread(); err != nil {
		return 0, err
	}
	var count uint32
	if err := coll.Maps["count"].Lookup(uint32(0), &count); err != nil {
		return 0, fmt.Errorf("read the preempt count: %w", err)
	}
	if count == unset {
		return 0, errors.New("the program that reads the preempt count did not run")
	}
	return uint8(count), nil // what is above counts interrupts
}

// renameThread gives the calling thread the name that it has.
func renameThread() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var name [16]byte
	if err := unix.Prctl(unix.PR_GET_NAME, uintptr(unsafe.Pointer(&name)), 0, 0, 0); err != nil {
		return fmt.Errorf("ask for a thread's name: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name)), 0, 0, 0); err != nil {
		return fmt.Errorf("set a thread's name: %w", err)
	}
	return nil
}

// loadPreemptCount makes the instructions that load it into R6.
func loadPreemptCount(types *btf.Spec) (asm.Instructions, error) {
	if runtime.GOARCH == "arm64" { // it stands in the task
		var task, info *btf.Struct
		if err := errors.Join(types.TypeByName("task_struct", &task), types.TypeByName("thread_info", &info)); err != nil {
			return nil, err
		}
		at, err := offsetOf(task, "thread_info")
		if err != nil {
			return nil, err
		}
		within, err := offsetOf(info, "preempt_count")
		if err != nil {
			return nil, err
		}
		return asm.Instructions{
			asm.FnGetCurrentTask.Call(),
			asm.Mov.Reg(asm.R3, asm.R0), asm.Add.Imm(asm.R3, int32(at+within)),
			asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, -16),
			asm.Mov.Imm(asm.R2, 4),
			asm.FnProbeReadKernel.Call(),
			asm.LoadMem(asm.R6, asm.RFP, -16, asm.Word),
		}, nil
	}
	// A variable of each CPU: by itself up to 6.1 and since 6.15, in pcpu_hot between.
	var variable *btf.Var
	offset := uint32(0)
	if err := types.TypeByName("__preempt_count", &variable); err != nil {
		if err := types.TypeByName("pcpu_hot", &variable); err != nil {
			return nil, err
		}
		hot, ok := btf.UnderlyingType(variable.Type).(*btf.Struct)
		if !ok {
			return nil, errors.New("pcpu_hot is no struct")
		}
		var err error
		if offset, err = offsetOf(hot, "preempt_count"); err != nil {
			return nil, err
		}
	}
	id, err := types.TypeID(variable)
	if err != nil {
		return nil, err
	}
	const pseudoBTFID = 3
	return asm.Instructions{
		{OpCode: asm.LoadImmOp(asm.DWord), Dst: asm.R1, Src: pseudoBTFID, Constant: int64(id)},
		asm.FnThisCpuPtr.Call(),
		asm.LoadMem(asm.R6, asm.R0, int16(offset), asm.Word),
	}, nil
}

// offsetOf gives where a member is in a struct, in bytes, also within what has no name
// in it.
func offsetOf(t btf.Type, name string) (uint32, error) {
	var members []btf.Member
	switch t := t.(type) {
	case *btf.Struct:
		members = t.Members
	case *btf.Union:
		members = t.Members
	}
	for _, m := range members {
		if m.Name == name {
			return m.Offset.Bytes(), nil
		}
		if m.Name == "" {
			if at, err := offsetOf(m.Type, name); err == nil {
				return m.Offset.Bytes() + at, nil
			}
		}
	}
	return 0, fmt.Errorf("%v has no member %s", t, name)
}
