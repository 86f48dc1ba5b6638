//go:build linux

// Package nofile knows the limit of open files that this process was started with.
//
// Package syscall raises the soft limit to the hard one when it is initialised, and
// a program is to have the original one, as the user has set it. Packages are
// initialised in the order of their import paths, as far as their imports allow
// (the Go specification, "Program initialization"); this one imports nothing, and
// so comes before syscall.
package nofile

import "unsafe"

// Limit is struct rlimit of getrlimit(2).
type Limit struct{ Cur, Max uint64 }

// Original is the RLIMIT_NOFILE that this process was started with; the zero value
// if it is not known.
var Original = func() (limit Limit) {
	const rlimitNofile = 7
	getrlimit(rlimitNofile, unsafe.Pointer(&limit))
	return limit
}()
