//go:build linux

#include "textflag.h"

#define SYS_clone3 435
#define SYS_exit_group 94

// func vfork(args *cloneArgs, size uintptr, steps *step, failed *failure) (pid int)
//
// The child runs on the stack of the parent, which is suspended until then, and
// therefore does nothing but system calls: it neither returns nor calls anything.
TEXT ·vfork(SB), NOSPLIT, $0-40
	MOVD	args+0(FP), R0
	MOVD	size+8(FP), R1
	MOVD	steps+16(FP), R10
	MOVD	failed+24(FP), R11
	MOVD	$SYS_clone3, R8
	SVC
	CBZ	R0, child
	MOVD	R0, pid+32(FP)
	RET
child:
	MOVD	R10, 8(R11)
	MOVD	0(R10), R8
	MOVD	8(R10), R0
	MOVD	16(R10), R1
	MOVD	24(R10), R2
	MOVD	32(R10), R3
	MOVD	40(R10), R4
	SVC
	CMN	$4095, R0	// -errno is in the last page
	BCS	fail
	ADD	$48, R10
	B	child
fail:
	NEG	R0, R0
	MOVD	R0, 0(R11)
exit:
	MOVD	$127, R0
	MOVD	$SYS_exit_group, R8
	SVC
	B	exit
