#include "textflag.h"

// func spawn(path *byte, argv, envp **byte) int
//
// The child has the parent's memory and stack until its exec, so it must not
// return from here, or the parent would find its stack changed.
TEXT ·spawn(SB), NOSPLIT, $0-32
	MOVQ path+0(FP), R12
	MOVQ argv+8(FP), R13
	MOVQ envp+16(FP), R15
	MOVQ $58, AX // vfork
	SYSCALL
	TESTQ AX, AX
	JZ   child
	MOVQ AX, ret+24(FP)
	RET

child:
	MOVQ R12, DI
	MOVQ R13, SI
	MOVQ R15, DX
	MOVQ $59, AX // execve
	SYSCALL
	MOVQ $127, DI
	MOVQ $60, AX // exit
	SYSCALL
	INT $3
