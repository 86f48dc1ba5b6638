//go:build linux && (amd64 || arm64)

package nofile

import "unsafe"

// getrlimit calls getrlimit(2). No package that can make system calls may be
// imported here.
//
//go:noescape
func getrlimit(resource int, limit unsafe.Pointer) (errno int)
