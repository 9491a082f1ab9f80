#include "textflag.h"

// func int80Openat(dirfd int32, name, flags, mode uint32) int32
TEXT ·int80Openat(SB), NOSPLIT, $0-20
	MOVL $295, AX
	MOVL dirfd+0(FP), BX
	MOVL name+4(FP), CX
	MOVL flags+8(FP), DX
	MOVL mode+12(FP), SI
	INT  $0x80
	MOVL AX, ret+16(FP)
	RET
