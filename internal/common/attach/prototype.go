package attach

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// The object says against which prototypes its programs were compiled in a
// variable of this name: a struct of function pointers, named for the function
// or tracepoint. The functions behind system calls all have that of "syscall". Where
// a program can do with several, as the tool tells it which one the kernel has, the
// others have a ___suffix behind the name.
const prototypes = "prototypes"

// declared finds the prototypes that spec's programs take target to have, or none.
func declared(spec *ebpf.CollectionSpec, target string) ([]*btf.FuncProto, error) {
	v := spec.Variables[prototypes]
	if v == nil {
		return nil, nil
	}
	s, ok := btf.UnderlyingType(v.Type.Type).(*btf.Struct)
	if !ok {
		return nil, fmt.Errorf("the object's variable %s is not a struct", prototypes)
	}
	name := target
	for _, prefix := range []string{"__x64_sys_", "__ia32_sys_", "__ia32_compat_sys_", "__arm64_sys_", "__arm64_compat_sys_"} {
		if strings.HasPrefix(target, prefix) {
			name = "syscall"
		}
	}
	var all []*btf.FuncProto
	for _, m := range s.Members {
		if essential(m.Name) != name {
			continue
		}
		ptr, ok := btf.UnderlyingType(m.Type).(*btf.Pointer)
		if !ok {
			return nil, fmt.Errorf("the object's %s.%s is not a pointer to a function", prototypes, m.Name)
		}
		proto, ok := ptr.Target.(*btf.FuncProto)
		if !ok {
			return nil, fmt.Errorf("the object's %s.%s is not a pointer to a function", prototypes, m.Name)
		}
		all = append(all, proto)
	}
	return all, nil
}

// oneOf compares what a program can do with with what the kernel has. The error is
// that of the first.
func oneOf(wants []*btf.FuncProto, have *btf.FuncProto, prefix bool) error {
	var first error
	for _, want := range wants {
		err := samePrototype(want, have, prefix)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// samePrototype compares what a program was compiled against with what the
// kernel has. Of a tracepoint's arguments a program may take only the first few.
func samePrototype(want, have *btf.FuncProto, prefix bool) error {
	if len(have.Params) < len(want.Params) || !prefix && len(have.Params) != len(want.Params) {
		return fmt.Errorf("%d arguments instead of %d", len(have.Params), len(want.Params))
	}
	for i := range want.Params {
		w, h := describe(want.Params[i].Type), describe(have.Params[i].Type)
		if w == anyPointer && isPointer(have.Params[i].Type) {
			continue
		}
		if w != h {
			return fmt.Errorf("argument %d is %s instead of %s", i+1, h, w)
		}
	}
	if w, h := describe(want.Return), describe(have.Return); !prefix && w != h {
		return fmt.Errorf("it returns %s instead of %s", h, w)
	}
	return nil
}

// describe names a type by what matters to a program that is handed a value of
// it: how wide it is, and what it points to. int and s32 are the same.
func describe(t btf.Type) string {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Pointer:
		switch target := btf.UnderlyingType(t.Target).(type) {
		case *btf.Struct:
			return "struct " + essential(target.Name) + " *"
		case *btf.Union:
			return "union " + essential(target.Name) + " *"
		case *btf.Fwd:
			return target.Kind.String() + " " + essential(target.Name) + " *"
		}
		return anyPointer
	case *btf.Int:
		if t.Encoding == btf.Bool {
			return "bool"
		}
		if t.Encoding == btf.Signed {
			return fmt.Sprintf("s%d", t.Size*8)
		}
		return fmt.Sprintf("u%d", t.Size*8)
	case *btf.Enum:
		return fmt.Sprintf("u%d", t.Size*8)
	case *btf.Void, nil:
		return "void"
	default:
		return t.TypeName()
	}
}

// anyPointer describes a pointer to what is no struct or union. A program that takes
// a void * does not mind what it points to.
const anyPointer = "pointer"

func isPointer(t btf.Type) bool {
	_, ok := btf.UnderlyingType(t).(*btf.Pointer)
	return ok
}

// essential cuts the ___suffix that CO-RE ignores as well.
func essential(name string) string {
	name, _, _ = strings.Cut(name, "___")
	return name
}

// incomplete reports whether a function takes a pointer to a type that is only
// declared. The verifier then knows nothing of what it points to, and refuses
// fentry programs that look (Debian's 5.10 has such types).
func incomplete(proto *btf.FuncProto) bool {
	for _, p := range proto.Params {
		if ptr, ok := btf.UnderlyingType(p.Type).(*btf.Pointer); ok {
			if _, ok := btf.UnderlyingType(ptr.Target).(*btf.Fwd); ok {
				return true
			}
		}
	}
	return false
}
