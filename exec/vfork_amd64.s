//go:build linux

#include "textflag.h"

#define SYS_clone3 435
#define SYS_exit_group 231

// func vfork(args *cloneArgs, size uintptr, steps *step, failed *failure) (pid int)
//
// The child runs on the stack of the parent, which is suspended until then, and
// therefore does nothing but system calls: it neither returns nor calls anything.
TEXT ·vfork(SB), NOSPLIT, $0-40
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	steps+16(FP), R12
	MOVQ	failed+24(FP), R13
	MOVQ	$SYS_clone3, AX
	SYSCALL
	TESTQ	AX, AX
	JEQ	child
	MOVQ	AX, pid+32(FP)
	RET
child:
	MOVQ	R12, 8(R13)
	MOVQ	0(R12), AX
	MOVQ	8(R12), DI
	MOVQ	16(R12), SI
	MOVQ	24(R12), DX
	MOVQ	32(R12), R10
	MOVQ	40(R12), R8
	SYSCALL
	CMPQ	AX, $-4095	// -errno is in the last page
	JCC	fail
	ADDQ	$48, R12
	JMP	child
fail:
	NEGQ	AX
	MOVQ	AX, 0(R13)
exit:
	MOVQ	$127, DI
	MOVQ	$SYS_exit_group, AX
	SYSCALL
	JMP	exit
