//go:build linux

package stack

import (
	"testing"
	"unsafe"
)

// deep needs some 6 KiB of stack, in small frames.
func deep(n int) int {
	var frame [64]byte
	if n == 0 {
		return 0
	}
	frame[n%64] = 1
	return deep(n-1) + int(frame[n%64])
}

// moves tells whether the stack of a new goroutine is copied for deep after begin.
func moves(begin func()) bool {
	moved := make(chan bool)
	go func() {
		begin()
		var here byte
		before := uintptr(unsafe.Pointer(&here))
		deep(50)
		moved <- uintptr(unsafe.Pointer(&here)) != before
	}()
	return <-moved
}

func TestGrow(t *testing.T) {
	if !moves(func() {}) {
		t.Errorf("a new goroutine has room for 50 calls; want a test that needs more")
	}
	if moves(grow) {
		t.Errorf("a stack that has grown grows again; want one that is large enough")
	}
}
