//go:build linux

package main

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// record is what those who serve have noted of each connection. It is a file in memory
// that is shared, so that what was noted last is there also when the process was killed.
type record struct {
	path   string
	counts []entry
	maps   []byte
}

// entry is of one connection: how often somebody has begun to serve it, and how often
// what the client sent was taken.
type entry struct{ begun, taken atomic.Uint32 }

// newRecord makes a record of n connections.
func newRecord(path string, n int) (*record, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := file.Chmod(0o666); err != nil { // other users serve, too
		return nil, err
	}
	if err := file.Truncate(int64(n) * int64(unsafe.Sizeof(entry{}))); err != nil {
		return nil, err
	}
	return openRecord(path)
}

func openRecord(path string) (*record, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	maps, err := unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	n := len(maps) / int(unsafe.Sizeof(entry{}))
	return &record{path, unsafe.Slice((*entry)(unsafe.Pointer(unsafe.SliceData(maps))), n), maps}, nil
}

func (r *record) close() { _ = unix.Munmap(r.maps) }

// of returns the entry of a connection.
func (r *record) of(id int64) (*entry, error) {
	if id < 0 || id >= int64(len(r.counts)) {
		return nil, fmt.Errorf("there is no connection %d", id)
	}
	return &r.counts[id], nil
}
