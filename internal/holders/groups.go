//go:build linux

package holders

import (
	"os"

	"golang.org/x/sys/unix"
)

// groups tells open file descriptions apart.
type groups struct {
	ordered []group // as kcmp(2) orders them
	last    int
}

type group struct {
	Descriptor
	number int
}

// compare returns the number of the open file description that d leads to: from 1 on,
// in the order in which they were compared first. It is 0 if that cannot be told.
func (g *groups) compare(d Descriptor) int {
	low, high := 0, len(g.ordered)
	for low < high {
		middle := (low + high) / 2
		switch order, err := kcmp(d, g.ordered[middle].Descriptor); {
		case err == nil && order == 0:
			return g.ordered[middle].number
		case err == nil && order == 1: // less
			high = middle
		case err == nil && order == 2: // greater
			low = middle + 1
		case !exists(d):
			return 0
		default: // the other one is closed, or its process has ended
			g.ordered = append(g.ordered[:middle], g.ordered[middle+1:]...)
			low, high = 0, len(g.ordered)
		}
	}
	if !exists(d) {
		return 0
	}
	g.last++
	g.ordered = append(g.ordered, group{})
	copy(g.ordered[low+1:], g.ordered[low:])
	g.ordered[low] = group{d, g.last}
	return g.last
}

// exists tells whether d can be compared at all.
func exists(d Descriptor) bool {
	_, err := kcmp(d, d)
	return err == nil
}

// kcmp compares open file descriptions, kcmp(2): 0 is equal, 1 less, 2 greater. It takes
// the right to read both processes' memory.
func kcmp(a, b Descriptor) (int, error) {
	const file = 0 // KCMP_FILE, linux/kcmp.h
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(a.PID), uintptr(b.PID), file, uintptr(a.FD), uintptr(b.FD), 0)
	if errno != 0 {
		return 0, os.NewSyscallError("kcmp", errno)
	}
	return int(order), nil
}
