package attach

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

var (
	intType   = &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	longType  = &btf.Int{Name: "long int", Size: 8, Encoding: btf.Signed}
	ulongType = &btf.Int{Name: "long unsigned int", Size: 8}
	boolType  = &btf.Int{Name: "_Bool", Size: 1, Encoding: btf.Bool}
	regsType  = &btf.Struct{Name: "pt_regs", Size: 8, Members: []btf.Member{{Name: "ax", Type: ulongType}}}
	reqType   = &btf.Struct{Name: "io_kiocb", Size: 8, Members: []btf.Member{{Name: "a", Type: ulongType}}}
)

func pointer(to btf.Type) btf.Type { return &btf.Pointer{Target: to} }

func proto(ret btf.Type, params ...btf.Type) *btf.FuncProto {
	p := &btf.FuncProto{Return: ret}
	for _, t := range params {
		p.Params = append(p.Params, btf.FuncParam{Type: t})
	}
	return p
}

func TestDescribe(t *testing.T) {
	for _, test := range []struct {
		t    btf.Type
		want string
	}{
		{intType, "s32"},
		{&btf.Typedef{Name: "s32", Type: &btf.Typedef{Name: "__s32", Type: intType}}, "s32"},
		{&btf.Const{Type: &btf.Volatile{Type: longType}}, "s64"},
		{ulongType, "u64"},
		{&btf.Int{Name: "char", Size: 1}, "u8"},
		{&btf.Int{Name: "char", Size: 1, Encoding: btf.Signed}, "s8"},
		{boolType, "bool"},
		{&btf.Enum{Name: "how", Size: 4}, "u32"},
		{&btf.Enum{Name: "wide", Size: 8}, "u64"},
		{&btf.Void{}, "void"},
		{pointer(&btf.Void{}), "pointer"},
		{pointer(intType), "pointer"},
		{pointer(pointer(regsType)), "pointer"},
		{pointer(&btf.Const{Type: regsType}), "struct pt_regs *"},
		{pointer(&btf.Typedef{Name: "regs_t", Type: regsType}), "struct pt_regs *"},
		{pointer(&btf.Struct{Name: "io_open___delayed"}), "struct io_open *"},
		{pointer(&btf.Union{Name: "bpf_attr"}), "union bpf_attr *"},
		{pointer(&btf.Fwd{Name: "io_kiocb", Kind: btf.FwdStruct}), "struct io_kiocb *"},
		{pointer(&btf.Fwd{Name: "u___2", Kind: btf.FwdUnion}), "union u *"},
		{&btf.Struct{Name: "by_value"}, "by_value"},
	} {
		if got := describe(test.t); got != test.want {
			t.Errorf("%v is %q, not %q", test.t, got, test.want)
		}
	}
}

func TestSamePrototype(t *testing.T) {
	regs := pointer(&btf.Const{Type: regsType})
	for _, test := range []struct {
		what       string
		want, have *btf.FuncProto
		prefix     bool
		err        string // "" for the same
	}{
		{"the same", proto(longType, regs), proto(longType, regs), false, ""},
		{"const and typedefs aside", proto(longType, regs), proto(&btf.Typedef{Name: "ssize_t", Type: longType}, pointer(regsType)), false, ""},
		{"int for long", proto(longType, regs), proto(intType, regs), false, "it returns s32 instead of s64"},
		{"nothing for long", proto(longType, regs), proto(&btf.Void{}, regs), false, "it returns void instead of s64"},
		{"unsigned for signed", proto(longType, regs), proto(ulongType, regs), false, "it returns u64 instead of s64"},
		{"one argument more", proto(longType, regs), proto(longType, regs, intType), false, "2 arguments instead of 1"},
		{"one argument less", proto(longType, regs, intType), proto(longType, regs), false, "1 arguments instead of 2"},
		{"another first argument", proto(longType, regs, intType), proto(longType, intType, intType), false, "argument 1 is s32 instead of struct pt_regs *"},
		{"a pointer to another struct", proto(longType, regs), proto(longType, pointer(reqType)), false, "argument 1 is struct io_kiocb * instead of struct pt_regs *"},
		{"arguments that changed places", proto(longType, regs, pointer(reqType)), proto(longType, pointer(reqType), regs), false, "argument 1 is"},
		{"only declared there", proto(longType, regs), proto(longType, pointer(&btf.Fwd{Name: "pt_regs"})), false, ""},
		{"the wrong return of a tracepoint", proto(&btf.Void{}, regs), proto(intType, regs), true, ""},
		{"a tracepoint that passes more", proto(&btf.Void{}, regs), proto(&btf.Void{}, regs, longType, longType), true, ""},
		{"a tracepoint that passes less", proto(&btf.Void{}, regs, longType), proto(&btf.Void{}, regs), true, "1 arguments instead of 2"},
		{"a tracepoint that passes others", proto(&btf.Void{}, regs, longType), proto(&btf.Void{}, regs, intType, longType), true, "argument 2 is s32 instead of s64"},
	} {
		err := samePrototype(test.want, test.have, test.prefix)
		switch {
		case test.err == "" && err != nil, test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)):
			t.Errorf("%s: %v, not %q", test.what, err, test.err)
		}
	}
}

func TestIncomplete(t *testing.T) {
	fwd := &btf.Fwd{Name: "io_kiocb", Kind: btf.FwdStruct}
	for _, test := range []struct {
		what  string
		proto *btf.FuncProto
		want  bool
	}{
		{"no arguments", proto(longType), false},
		{"a whole struct", proto(longType, pointer(regsType)), false},
		{"a declaration", proto(longType, longType, pointer(&btf.Const{Type: fwd})), true},
		{"a pointer to a pointer to one", proto(longType, pointer(pointer(fwd))), false},
	} {
		if got := incomplete(test.proto); got != test.want {
			t.Errorf("%s: %v", test.what, got)
		}
	}
}

// objectWith is a spec that declares prototypes as the tools' objects do.
func objectWith(t *testing.T, members map[string]btf.Type) *ebpf.CollectionSpec {
	t.Helper()
	s := &btf.Struct{Name: ""}
	for name, typ := range members {
		s.Members = append(s.Members, btf.Member{Name: name, Type: typ, Offset: btf.Bits(64 * len(s.Members))})
	}
	return &ebpf.CollectionSpec{
		Programs: map[string]*ebpf.ProgramSpec{},
		Maps:     map[string]*ebpf.MapSpec{},
		Variables: map[string]*ebpf.VariableSpec{
			prototypes: {Name: prototypes, Type: &btf.Var{Name: prototypes, Type: &btf.Const{Type: &btf.Volatile{Type: s}}}},
		},
	}
}

// sorted puts prototypes into the order of their number of arguments.
func sorted(all []*btf.FuncProto) []*btf.FuncProto {
	return slices.SortedFunc(slices.Values(all), func(a, b *btf.FuncProto) int { return len(a.Params) - len(b.Params) })
}

func TestOneOf(t *testing.T) {
	one, two, other := proto(&btf.Void{}, pointer(reqType)), proto(&btf.Void{}, pointer(regsType), pointer(reqType)), proto(&btf.Void{}, longType)
	for _, test := range []struct {
		wants []*btf.FuncProto
		have  *btf.FuncProto
		want  string
	}{
		{nil, other, ""},
		{[]*btf.FuncProto{one, two}, one, ""},
		{[]*btf.FuncProto{one, two}, two, ""},
		{[]*btf.FuncProto{one, two}, other, "argument 1 is s64 instead of struct io_kiocb *"},
	} {
		err := oneOf(test.wants, test.have, true)
		if got := fmt.Sprint(err); got != test.want && (err != nil || test.want != "") {
			t.Errorf("%v: %v", test, err)
		}
	}
}

func TestDeclared(t *testing.T) {
	syscall, exit := proto(longType, pointer(regsType)), proto(&btf.Void{}, pointer(regsType), longType)
	spec := objectWith(t, map[string]btf.Type{
		"syscall": pointer(syscall), "sys_exit": pointer(exit), "sys_exit___old": pointer(syscall), "number": longType, "data": pointer(regsType),
	})
	for target, want := range map[string][]*btf.FuncProto{
		"sys_exit":                    {exit, syscall},
		"__x64_sys_openat":            {syscall},
		"__ia32_sys_openat2":          {syscall},
		"__ia32_compat_sys_openat":    {syscall},
		"__arm64_sys_openat":          {syscall},
		"__arm64_compat_sys_openat":   {syscall},
		"do_sys_openat2":              nil,
		"do___x64_sys_like_but_isn't": nil,
	} {
		got, err := declared(spec, target)
		if err != nil || len(got) != len(want) || !slices.Equal(sorted(got), sorted(want)) {
			t.Errorf("%s: %v, %v, not %v", target, got, err, want)
		}
	}
	for _, target := range []string{"number", "data"} {
		if _, err := declared(spec, target); err == nil || !strings.Contains(err.Error(), "prototypes."+target) {
			t.Errorf("%s is no pointer to a function, and gives %v", target, err)
		}
	}
	delete(spec.Variables, prototypes)
	if got, err := declared(spec, "sys_exit"); got != nil || err != nil {
		t.Errorf("an object that declares nothing: %v, %v", got, err)
	}
	spec.Variables[prototypes] = &ebpf.VariableSpec{Type: &btf.Var{Type: longType}}
	if _, err := declared(spec, "sys_exit"); err == nil {
		t.Error("prototypes that are a number were taken")
	}
}
