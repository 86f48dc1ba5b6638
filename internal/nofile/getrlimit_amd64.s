//go:build linux

#include "textflag.h"

// func getrlimit(resource int, limit unsafe.Pointer) (errno int)
TEXT ·getrlimit(SB), NOSPLIT, $0-24
	MOVQ	resource+0(FP), DI
	MOVQ	limit+8(FP), SI
	MOVQ	$97, AX // getrlimit
	SYSCALL
	MOVQ	AX, errno+16(FP)
	RET
