//go:build linux

package exec

import (
	"os"
	osexec "os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
)

// TestDoubt: a worker that has its queue at another descriptor, as those have that use
// package fdrecv, is looked for there at once the next time, and searches are apart.
func TestDoubt(t *testing.T) {
	fdtest.NoLeaks(t)
	ours, theirs := fdtest.Pair(t, unix.SOCK_SEQPACKET)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	copied, err := unix.FcntlInt(uintptr(theirs.FD), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	queue := os.NewFile(uintptr(copied), "queue")
	defer queue.Close()
	process := osexec.Command("sleep", "1000")
	process.ExtraFiles = []*os.File{null, null, queue} // from 3 on
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	}()
	pid := process.Process.Pid
	r := &Worker{PID: pid, fd: ours.FD, theirs: theirs.FD, at: 3, files: "/proc/" + strconv.Itoa(pid) + "/fd"}
	w := &Workers{}
	begin := time.Now()
	w.doubt(r, begin)
	fdtest.Eventually(t, "the worker is searched", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.orders) == 1
	})
	if !w.searches {
		t.Errorf("a further search may begin before the first one is told of")
	}
	w.orders[0]()
	if r.at != 5 || w.searches || !w.searchAt.After(begin) {
		t.Errorf("the queue is at %d, a search is on: %v, the next one may begin %v after the first; want 5, false, some time", r.at, w.searches, w.searchAt.Sub(begin))
	}
	w.doubt(r, w.searchAt)
	if w.searches {
		t.Errorf("the worker is searched again, although it has its queue where it had it")
	}
}
