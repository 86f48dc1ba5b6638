//go:build linux

#include "textflag.h"

// func getrlimit(resource int, limit unsafe.Pointer) (errno int)
TEXT ·getrlimit(SB), NOSPLIT, $0-24
	MOVD	resource+0(FP), R0
	MOVD	limit+8(FP), R1
	MOVD	$163, R8 // getrlimit
	SVC
	MOVD	R0, errno+16(FP)
	RET
