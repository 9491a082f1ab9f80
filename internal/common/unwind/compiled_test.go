package unwind

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// compile makes a file of a source in testdata, or of assembly. It skips the test if there are
// no such tools.
func compile(t *testing.T, target, source string, flags ...string) string {
	t.Helper()
	for _, tool := range []string{"clang-19", "ld.lld-19"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED: no %s here", tool)
		}
	}
	dir := t.TempDir()
	if strings.Contains(source, "\n") {
		path := filepath.Join(dir, "source.s")
		if err := os.WriteFile(path, []byte(source), 0o600); err != nil {
			t.Fatal(err)
		}
		source = path
	} else {
		source = filepath.Join("testdata", source)
	}
	out := filepath.Join(dir, "out")
	args := []string{"--target=" + target, "-nostdlib", "-ffreestanding", "-fasynchronous-unwind-tables", "-fuse-ld=lld", "-o", out, source}
	if said, err := exec.Command("clang-19", append(args, flags...)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	return out
}

const amd64Target, arm64Target = "x86_64-linux-gnu", "aarch64-linux-gnu"

// Tables of what compilers make of one source for two machines agree with readelf.
func TestCompiled(t *testing.T) {
	if _, err := exec.LookPath("readelf"); err != nil {
		t.Skip("SKIPPED: no readelf here (Debian's binutils)")
	}
	for _, target := range []string{amd64Target, arm64Target} {
		for _, flags := range []string{
			"-O0", "-O1", "-O2", "-O3", "-Os", "-O2 -fno-omit-frame-pointer", "-O2 -fstack-protector-all",
			// Of debuggers' tables, plain and compressed.
			"-O2 -g -fno-asynchronous-unwind-tables", "-O2 -g -fno-asynchronous-unwind-tables -gz=zlib", "-O2 -g -fno-asynchronous-unwind-tables -gz=zstd",
			"-O2 -mbranch-protection=standard", "-O2 -fcf-protection",
		} {
			if strings.Contains(flags, "-mbranch") && target == amd64Target || strings.Contains(flags, "-fcf") && target == arm64Target {
				continue
			}
			t.Run(target+" "+flags, func(t *testing.T) {
				t.Parallel()
				path := compile(t, target, "frames.c", append(strings.Fields(flags), "-shared", "-fPIC")...)
				if rows := checkAgainstReadelf(t, path); rows < 20 {
					t.Errorf("only %d rows", rows)
				}
				e, err := elf.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				defer e.Close()
				if debug := strings.Contains(flags, "-g"); debug != (e.Section(".debug_frame") != nil) || debug != (e.Section(".eh_frame") == nil) {
					t.Error("it is not of the table that this is a test of")
				}
				kinds := map[CFA]bool{}
				for _, r := range openTable(t, path).Rules {
					kinds[r.Cfa] = true
				}
				if !kinds[SP] || !kinds[FP] {
					t.Errorf("it only has rules of the kinds %v", kinds)
				}
			})
		}
	}
}

// symbolsOf gives the addresses of a file's symbols.
func symbolsOf(t *testing.T, path string) map[string]uint64 {
	t.Helper()
	e, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	all, err := e.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]uint64{}
	for _, s := range all {
		out[s.Name] = s.Value
	}
	return out
}

// rulesAt checks the rules at places that a table has as symbols' names with offsets.
func rulesAt(t *testing.T, path string, want map[string]Rule) {
	t.Helper()
	table := openTable(t, path)
	symbols := symbolsOf(t, path)
	for place, rule := range want {
		name, offset := place, int64(0)
		if i := strings.IndexAny(place, "+-"); i > 0 {
			name = place[:i]
			if _, err := fmt.Sscanf(place[i:], "%d", &offset); err != nil {
				t.Fatal(err)
			}
		}
		addr, ok := symbols[name]
		if !ok {
			t.Fatalf("there is no %s", name)
		}
		if got := table.Find(addr + uint64(offset)); got != rule {
			t.Errorf("%s: %+v, want %+v", place, got, rule)
		}
	}
}

// called is the rule of a function of amd64 at its beginning.
var called = Rule{Cfa: SP, Offset: 8, Ra: AtCFA, RaOffset: -1}

// What no table tells, in amd64 code: the beginning of a program, what signals' handlers return
// to, and what vfork does.
func TestSpecialAMD64(t *testing.T) {
	path := compile(t, amd64Target, `
	.text
	.globl _start
_start:	xor %rbp, %rbp
	mov %rsp, %rdi
	and $-16, %rsp
	call begin
behind:	nop
	.skip 300, 0x90
	.globl begin
begin:	.cfi_startproc
	push %rbx
	.cfi_adjust_cfa_offset 8
	pop %rbx
	.cfi_adjust_cfa_offset -8
	ret
	.cfi_endproc
	.skip 64, 0x90
restorer:
	mov $15, %rax
	syscall
restorer_end:
	.skip 64, 0x90
	.cfi_startproc
	.cfi_signal_frame
	nop
known_restorer:
	mov $15, %rax
	syscall
	.cfi_endproc
	.skip 64, 0x90
vfork:	.cfi_startproc
	pop %rdi
	.cfi_adjust_cfa_offset -8
	.cfi_register %rip, %rdi
popped:	mov $58, %eax
	syscall
	push %rdi
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %rip, 0
pushed:	ret
	.cfi_endproc
	.skip 64, 0x90
jumps:	.cfi_startproc
	.cfi_def_cfa_offset 0
	.cfi_register %rip, %r11
	nop
jumped:	ret
	.cfi_endproc
	.skip 64, 0x90
root:	.cfi_startproc
	.cfi_undefined %rip
	nop
	.cfi_endproc
`, "-static", "-Wl,--no-rosegment")
	popped := Rule{Cfa: SP, Ra: AtCFA, RaOffset: -1, Flags: Elsewhere}
	signal := Rule{Cfa: Signal, Offset: 40}
	rulesAt(t, path, map[string]Rule{
		"_start": {Cfa: End}, "behind-1": {Cfa: End}, "behind": {}, "begin-1": {}, "begin": called,
		"begin+1": {Cfa: SP, Offset: 16, Ra: AtCFA, RaOffset: -1}, "begin+2": called, "begin+30": {},
		"restorer-2": {}, "restorer-1": signal, "restorer": signal, "restorer_end-1": signal, "restorer_end": {},
		"known_restorer-1": signal, "known_restorer+8": signal, "known_restorer+9": {},
		"vfork": called, "popped": popped, "popped+6": popped, "pushed": called,
		"jumps": {}, "jumped": {}, "root": {Cfa: End},
	})
}

// What the compiler links in front of and behind programs, as GCC and its crtbegin.o have it.
func TestStartFilesAMD64(t *testing.T) {
	path := compile(t, amd64Target, `
	.section .init, "ax"
	.globl _init
_init:	endbr64
	sub $8, %rsp
init_within:
	call begin
	add $8, %rsp
init_after:
	ret
	.section .fini, "ax"
_fini:	sub $8, %rsp
fini_within:
	add $8, %rsp
fini_after:
	ret
	.text
	.globl begin
begin:	.cfi_startproc
	ret
	.cfi_endproc
	.skip 64, 0x90
deregister:
	lea done(%rip), %rdi
	lea done(%rip), %rax
	cmp %rdi, %rax
	je 1f
	jmp *%rax
1:	ret
	.skip 16, 0x90
aux:	endbr64
	cmpb $0, done(%rip)
	jne 1f
	push %rbp
aux_within:
	mov %rsp, %rbp
	call deregister
	movb $1, done(%rip)
	pop %rbp
aux_after:
	ret
1:	ret
	.balign 16
frame_dummy:
	jmp deregister
	.skip 64, 0x90
unknown:
	nop
	.skip 64, 0x90
	.bss
done:	.byte 0
`, "-static", "-Wl,--no-rosegment", "-Wl,-e,begin")
	within := Rule{Cfa: SP, Offset: 16, Fp: AtCFA, FpOffset: -2, Ra: AtCFA, RaOffset: -1}
	rulesAt(t, path, map[string]Rule{
		"_init": called, "init_within-1": called, "init_within": sp(16), "init_after-1": sp(16), "init_after": called,
		"_fini": called, "fini_within": sp(16), "fini_after": called,
		"deregister-1": {}, "deregister": called, "aux": called, "aux_within-1": called, "aux_within": within, "aux_after-1": within,
		"aux_after": called, "frame_dummy": called, "unknown": {},
	})
}

func TestStartFilesARM64(t *testing.T) {
	path := compile(t, arm64Target, `
	.section .init, "ax"
	.globl _init
_init:	paciasp
	stp x29, x30, [sp, #-16]!
init_within:
	mov x29, sp
	bl begin
	ldp x29, x30, [sp], #16
init_after:
	autiasp
	ret
	.text
	.globl begin
begin:	.cfi_startproc
	ret
	.cfi_endproc
`, "-static", "-Wl,--no-rosegment", "-Wl,-e,begin")
	within := Rule{Cfa: SP, Offset: 16, Fp: AtCFA, FpOffset: -2, Ra: AtCFA, RaOffset: -1}
	rulesAt(t, path, map[string]Rule{
		"_init": {Cfa: SP}, "init_within-1": {Cfa: SP}, "init_within": within, "init_after-1": within, "init_after": {Cfa: SP}, "init_after+4": {Cfa: SP},
	})
}

// TestSpecialARM64 is TestSpecialAMD64 in arm64 code.
func TestSpecialARM64(t *testing.T) {
	path := compile(t, arm64Target, `
	.text
	.globl _start
_start:	bti c
	mov x29, #0
	mov x30, #0
	mov x0, sp
	b begin
behind:	nop
	.skip 300
	.globl begin
begin:	.cfi_startproc
	paciasp
	.cfi_negate_ra_state
	stp x29, x30, [sp, #-32]!
	.cfi_def_cfa_offset 32
	.cfi_offset x29, -32
	.cfi_offset x30, -24
	mov x29, sp
	.cfi_def_cfa x29, 32
framed:	nop
	ldp x29, x30, [sp], #32
	.cfi_restore x29
	.cfi_restore x30
	.cfi_def_cfa sp, 0
	ret
	.cfi_endproc
	.skip 64
restorer:
	mov x8, #139
	svc #0
restorer_end:
	.skip 64
	.cfi_startproc
	.cfi_undefined x30
root:	nop
	.cfi_endproc
`, "-static", "-Wl,--no-rosegment")
	signal := Rule{Cfa: Signal, Offset: 312}
	rulesAt(t, path, map[string]Rule{
		"_start": {Cfa: End}, "behind-1": {Cfa: End}, "behind": {}, "begin-1": {},
		"begin": {Cfa: SP}, "begin+4": {Cfa: SP}, "begin+8": {Cfa: SP, Offset: 32, Fp: AtCFA, FpOffset: -4, Ra: AtCFA, RaOffset: -3},
		"framed": {Cfa: FP, Offset: 32, Fp: AtCFA, FpOffset: -4, Ra: AtCFA, RaOffset: -3}, "framed+8": {Cfa: SP},
		"restorer-2": {}, "restorer-1": signal, "restorer": signal, "restorer_end-1": signal, "restorer_end": {}, "root": {Cfa: End},
	})
}

// A beginning that has all but the word that it is the root, as old C libraries of arm64 have it.
func TestOldRoot(t *testing.T) {
	path := compile(t, arm64Target, `
	.text
	.globl _start
_start:	.cfi_startproc
	mov x29, #0
	mov x30, #0
	bl begin
behind:	bl begin
	.cfi_endproc
begin:	.cfi_startproc
	ret
	.cfi_endproc
`, "-static", "-Wl,--no-rosegment")
	rulesAt(t, path, map[string]Rule{"_start": {Cfa: End}, "behind": {Cfa: End}, "begin": {Cfa: SP}})
}

// Stubs that a linker tells nothing of have rules all the same.
func TestStubs(t *testing.T) {
	for _, test := range []struct {
		target, flags string
		section       string
		want          map[uint64]Rule // by offset
	}{
		{amd64Target, "-O2", ".plt", map[uint64]Rule{
			0: {Cfa: SP, Offset: 16, Ra: AtCFA, RaOffset: -1}, 6: {Cfa: SP, Offset: 24, Ra: AtCFA, RaOffset: -1},
			16: {Cfa: PLT, Offset: 8, Add: 11, Ra: AtCFA, RaOffset: -1},
		}},
		{arm64Target, "-O2", ".plt", map[uint64]Rule{
			0: {Cfa: SP}, 4: {Cfa: SP, Offset: 16, Ra: AtCFA, RaOffset: -1}, 32: {Cfa: SP}, 44: {Cfa: SP},
		}},
		{amd64Target, "-O2 -fcf-protection -Wl,-z,force-ibt", ".plt", map[uint64]Rule{
			0: {Cfa: SP, Offset: 16, Ra: AtCFA, RaOffset: -1}, 6: {Cfa: SP, Offset: 24, Ra: AtCFA, RaOffset: -1},
			16: {Cfa: PLT, Offset: 8, Add: 9, Ra: AtCFA, RaOffset: -1},
		}},
		{amd64Target, "-O2 -fcf-protection -Wl,-z,force-ibt", ".plt.sec", map[uint64]Rule{0: called, 15: called}},
	} {
		t.Run(test.target+" "+test.flags+" "+test.section, func(t *testing.T) {
			t.Parallel()
			path := compile(t, test.target, "frames.c", append(strings.Fields(test.flags), "-shared", "-fPIC")...)
			e, err := elf.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			s := e.Section(test.section)
			if s == nil {
				t.Fatalf("there is no %s", test.section)
			}
			table := openTable(t, path)
			for offset, want := range test.want {
				if got := table.Find(s.Addr + offset); got != want {
					t.Errorf("%d: %+v, want %+v", offset, got, want)
				}
			}
			if got := table.Find(s.Addr + s.Size - 1); got == (Rule{}) {
				t.Error("there is no rule for its end")
			}
		})
	}
}

// Functions of arm64 that have no frame need no table, as those of its vdso have none.
func TestLeaves(t *testing.T) {
	path := compile(t, arm64Target, "frames.c", "-O2", "-fno-asynchronous-unwind-tables", "-shared", "-fPIC")
	table := openTable(t, path)
	symbols := symbolsOf(t, path)
	for name, want := range map[string]Rule{"leaf": {Cfa: SP}, "small": {}, "never": {}, "tail": {}, "large": {}, "all": {}} {
		if got := table.Find(symbols[name]); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestIsLeaf(t *testing.T) {
	instructions := []string{
		"add x0, x1, x2", "add x5, sp, x5", "ldr xzr, [x5]", "ldr w3, [x4, #248]", "tst w2, #0x60", "cmp x0, x2", "b.ne .",
		"cbz w30, .", "tbnz w0, #30, .", "svc #0", "ret", "br x1", "mrs x2, cntvct_el0", "isb", "cmp sp, x1", "b .", "",
		"bl .", "blr x3", "blraaz x3", "sub sp, sp, #16", "add sp, sp, x1", "mov sp, x0", "and sp, x0, #-16", "stp x29, x30, [sp, #-16]!",
		"str x0, [sp, #-16]!", "ldr x30, [x0]", "ldp x0, x30, [x1]", "mov x30, x0", "mov x30, #1", "csel x30, x0, x1, eq",
		"mrs x30, cntvct_el0", "adr x30, .", "ldr x30, .", "ldxp x0, x30, [x1]", "add x30, x30, #4",
	}
	var source strings.Builder
	source.WriteString("\t.text\n\t.globl _start\n_start:\n")
	for _, i := range instructions {
		source.WriteString("\t" + i + "\n")
	}
	e, err := elf.Open(compile(t, arm64Target, source.String(), "-static", "-march=armv8.3-a"))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	code, err := e.Section(".text").Data()
	if err != nil {
		t.Fatal(err)
	}
	want := true // of those before the empty one
	for _, i := range instructions {
		if i == "" {
			want = false
			continue
		}
		if got := isLeaf(code[:4]); got != want {
			t.Errorf("%s (%x): %v", i, code[:4], got)
		}
		code = code[4:]
	}
}
