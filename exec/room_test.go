//go:build linux

package exec_test

import (
	"bufio"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/exec"
	"fdkit/internal/fdtest"
	"fdkit/internal/scm"
)

// giveMany is give with n descriptors.
func (w *workers) giveMany(t *testing.T, n int) *bufio.Reader {
	t.Helper()
	client, its := fdtest.TCPPair(t)
	if err := w.queue.Send([]byte(scm.Begin), slices.Repeat([]int{its.FD}, n)...); err != nil {
		t.Fatalf("Send() of %d descriptors = %v", n, err)
	}
	its.Close()
	file := os.NewFile(uintptr(client.Take()), "client")
	t.Cleanup(func() { file.Close() })
	return bufio.NewReader(file)
}

// TestTooManyDescriptors: a message that no worker could ever have is lost, which is said,
// and what comes behind it is not held up.
func TestTooManyDescriptors(t *testing.T) {
	for name, set := range map[string]func(*exec.Workers){
		"fifo": func(*exec.Workers) {},
		"hash": func(w *exec.Workers) { w.Balance = exec.HashSource },
		"key":  func(w *exec.Workers) { w.Key = "FDKIT_KEY" },
	} {
		t.Run(name, func(t *testing.T) {
			fdtest.NoLeaks(t)
			limit := exec.Limit{Resource: unix.RLIMIT_NOFILE, Cur: 40, Max: 40}
			w := runWorkers(t, 2, func(w *exec.Workers) {
				w.Confine.Limits = []exec.Limit{limit}
				set(w)
			})
			for _, n := range []int{100, 40} {
				if text, err := w.giveMany(t, n).ReadString('\n'); err != io.EOF || text != "" {
					t.Errorf("the client whose message has %d descriptors has %q, %v; want its connection closed", n, text, err)
				}
				answer(t, w.give(t))
			}
			answer(t, w.giveMany(t, 12))
			w.finish(t)
			w.wantTroubles(t, " its 100 descriptors", " its 40 descriptors")
		})
	}
}

// TestRoomElsewhere: a message with many descriptors goes to the worker that can have it.
func TestRoomElsewhere(t *testing.T) {
	fdtest.NoLeaks(t)
	w := runWorkers(t, 2, nil, "cramped")
	by := map[int]bool{}
	fdtest.Eventually(t, "both workers run", func() bool {
		pid, _ := answer(t, w.give(t))
		by[pid] = true
		return len(by) == 2
	})
	var cramped int
	for _, s := range w.Status() {
		if s.Index == 0 {
			cramped = s.PID
		}
	}
	for range 4 {
		if pid, _ := answer(t, w.giveMany(t, 100)); pid == cramped {
			t.Errorf("worker %d has answered, which may have 40 descriptors", pid)
		}
	}
	w.finish(t)
	if w.see(func() bool {
		return slices.ContainsFunc(w.troubles, func(text string) bool { return strings.Contains(text, "lost") })
	})() {
		t.Errorf("told of %q; want nothing lost", w.troubles)
	}
}

// TestLittleRoom: a worker with a limit of open files that is very low has what it can have.
func TestLittleRoom(t *testing.T) {
	fdtest.NoLeaks(t)
	limit := exec.Limit{Resource: unix.RLIMIT_NOFILE, Cur: 16, Max: 16}
	w := runWorkers(t, 1, func(w *exec.Workers) { w.Confine.Limits = []exec.Limit{limit} })
	for range 20 {
		answer(t, w.give(t))
	}
	w.finish(t)
	w.wantTroubles(t)
}
