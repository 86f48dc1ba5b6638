//go:build linux

// Package stack gives the main goroutine the stack that commands need, at once.
//
// It begins with 2 KiB, and the Go runtime doubles it when it is full: it copies all that
// is there, and for each function looks up in tables all over the program's file what has
// pointers. Three times that, when many functions are on the stack, takes a twentieth of
// the time until fdkit recv-exec becomes its program. With none on it it takes nothing.
//
// This package imports nothing, and so is initialised before most others (the Go
// specification, "Program initialization").
package stack

// grow has a frame of 12 KiB, which it does not touch: the stack is 16 KiB from there on.
func grow()

func init() { grow() }
