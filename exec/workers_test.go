//go:build linux

package exec_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/exec"
	"fdkit/internal/fdtest"
	"fdkit/internal/scm"
)

// worker is the program of a worker: it writes its number and the message to each
// connection. What its arguments say comes in between.
func worker(args []string) error {
	at := 0
	if n, err := strconv.Atoi(os.Getenv("FDKIT_QUEUE_FD")); err == nil {
		at = n
	}
	does := func(what string) bool { return slices.Contains(args, what) }
	say := func(text string) {
		if err := scm.NewSender(at, nil).Send([]byte(text)); err != nil {
			fmt.Fprintln(os.Stderr, "worker:", err)
		}
	}
	if does("lingers") {
		time.Sleep(time.Hour)
	}
	if does("fails") {
		return errors.New("on purpose")
	}
	if does("cramped") && os.Getenv("FDKIT_WORKER") == "0" {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 40, Max: 40}); err != nil {
			return err
		}
	}
	receiver := scm.NewReceiver(at, nil)
	for n := 0; ; n++ {
		if does("ready") {
			say("READY")
		}
		if does("babbles") {
			say("HELLO\nREADY=x")
		}
		var m scm.Message
		if err := receiver.Receive(&m); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		lease, _ := scm.Var(m.Payload, "FDKIT_LEASE")
		if does("dies") && n == 0 && os.Getenv("FDKIT_WORKER") == "0" {
			if does("late") {
				_, _ = unix.Write(m.FDs[0], []byte("half an ans"))
			}
			os.Exit(3)
		}
		if does("slow") {
			time.Sleep(60 * time.Millisecond)
		}
		fmt.Fprintf(os.NewFile(uintptr(m.FDs[0]), "connection"), "%d %s %q\n", os.Getpid(), os.Getenv("FDKIT_KEY"), m.Payload)
		if does("ready") {
			_ = unix.Shutdown(m.FDs[0], unix.SHUT_RDWR)
			say(strings.TrimSuffix("DONE="+lease, "="))
			if does("served") {
				os.Exit(3)
			}
		}
		if !does("keeps") {
			m.Close()
		}
		if does("deserts") && n == 1 {
			_ = unix.Close(at)
			time.Sleep(time.Hour)
		}
		if does("sticks") && os.Getenv("FDKIT_WORKER") == "0" {
			time.Sleep(time.Hour)
		}
	}
}

// workers is Workers, and what they have told.
type workers struct {
	*exec.Workers
	queue *scm.Sender
	end   *fdtest.End // by which connections come
	ended chan error

	mu       sync.Mutex
	pids     []int
	gone     map[int]syscall.WaitStatus
	troubles []string
}

// runWorkers runs n workers that do what the words say until the test's end.
func runWorkers(t *testing.T, n int, set func(*exec.Workers), does ...string) *workers {
	t.Helper()
	sender, receiver := fdtest.Pair(t, unix.SOCK_SEQPACKET)
	w := &workers{queue: scm.NewSender(sender.FD, nil), end: sender, ended: make(chan error, 1), gone: map[int]syscall.WaitStatus{}}
	from := scm.NewReceiver(receiver.FD, nil)
	var m scm.Message
	w.Workers = &exec.Workers{
		Program: &exec.Program{Path: "/proc/self/exe", Args: append([]string{"worker"}, does...)},
		Environ: append(os.Environ(), "FDTEST_PROGRAM=worker"), N: n, Queue: receiver.FD,
		Receive: func(c *exec.Connection) (bool, error) {
			came, err := from.ReceiveNow(&m)
			c.FDs, c.Payload = m.FDs, m.Payload
			return came, err
		},
		Started: func(worker *exec.Worker) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.pids = append(w.pids, worker.PID)
		},
		Ended: func(worker *exec.Worker, status syscall.WaitStatus) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.gone[worker.PID] = status
		},
		Trouble: func(err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.troubles = append(w.troubles, err.Error())
		},
	}
	if set != nil {
		set(w.Workers)
	}
	go func() {
		w.ended <- w.Run()
		close(w.ended)
	}()
	t.Cleanup(func() {
		w.Workers.Signal(syscall.SIGKILL)
		for range w.ended {
		}
		// Until then it would take away the children of others.
		fdtest.Eventually(t, "nobody waits for children any more", func() bool { return !fdtest.Inside("(*Workers).reap") })
	})
	return w
}

func (w *workers) see(what func() bool) func() bool {
	return func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return what()
	}
}

// give sends a connection that comes with variables, and returns the client's end.
func (w *workers) give(t *testing.T, vars ...string) *bufio.Reader {
	t.Helper()
	client, its := fdtest.TCPPair(t)
	payload := []byte(scm.Begin)
	for _, v := range vars {
		name, value, _ := strings.Cut(v, "=")
		payload = scm.AppendVar(payload, name, value)
	}
	if err := w.queue.Send(payload, its.FD); err != nil {
		t.Fatalf("Send() = %v", err)
	}
	its.Close()
	file := os.NewFile(uintptr(client.Take()), "client")
	t.Cleanup(func() { file.Close() })
	return bufio.NewReader(file)
}

// answer returns the number of the worker that answers, and what it says.
func answer(t *testing.T, client *bufio.Reader) (pid int, text string) {
	t.Helper()
	line := make(chan string, 1)
	go func() {
		text, err := client.ReadString('\n')
		line <- text + map[bool]string{true: " and no more"}[err != nil]
	}()
	text = fdtest.Soon(t, "the worker's answer", line)
	if _, err := fmt.Sscan(text, &pid); err != nil {
		t.Fatalf("the answer is %q, want it to begin with a number", text)
	}
	return pid, text
}

// finish ends the queue, and Run with it.
func (w *workers) finish(t *testing.T) {
	t.Helper()
	w.end.Close()
	if err := fdtest.Soon(t, "the end of Run", w.ended); err != nil {
		t.Errorf("Run() = %v", err)
	}
}

func (w *workers) wantTroubles(t *testing.T, want ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.troubles) != len(want) {
		t.Errorf("told of %q; want %d: %q", w.troubles, len(want), want)
		return
	}
	for i, text := range want {
		if !strings.Contains(w.troubles[i], text) {
			t.Errorf("told of %q; want %q in number %d", w.troubles, text, i)
		}
	}
}

// TestShares: idle workers have equal shares, whether they say READY or not.
func TestShares(t *testing.T) {
	// One that has just answered has perhaps not said READY again, and misses its turn.
	for does, off := range map[string]int{"nothing": 1, "ready": 3} {
		fdtest.NoLeaks(t)
		w := runWorkers(t, 16, nil, does)
		// Again if one has had no CPU for so long that it was not idle.
		fdtest.Eventually(t, "equal shares of workers that do "+does, func() bool {
			shares := map[int]int{}
			for range 160 {
				pid, _ := answer(t, w.give(t))
				shares[pid]++
			}
			all := slices.Sorted(maps.Values(shares))
			t.Logf("the shares are %v", all)
			return len(all) == 16 && all[0] >= 10-off && all[15] <= 10+off
		})
		w.finish(t)
		w.wantTroubles(t)
	}
}

// TestIdleEnd: workers that have nothing to do see the end of the queue too.
func TestIdleEnd(t *testing.T) {
	fdtest.NoLeaks(t)
	w := runWorkers(t, 2, nil)
	asleep := func() bool { return fdtest.Inside("(*Workers).wait", "unix.Poll") }
	for range 20 { // what starting them brings is over
		fdtest.Eventually(t, "the pool waits", asleep)
	}
	w.finish(t)
}

// TestStoppedWorker: what a stopped worker has not received goes to another, and it is
// given little after that.
func TestStoppedWorker(t *testing.T) {
	w := runWorkers(t, 2, nil)
	first, _ := answer(t, w.give(t))
	stop(t, first)
	var clients []*bufio.Reader
	for range 20 {
		clients = append(clients, w.give(t))
	}
	for _, c := range clients {
		if pid, _ := answer(t, c); pid == first {
			t.Errorf("worker %d has answered, which is stopped", pid)
		}
	}
	_ = unix.Kill(first, unix.SIGCONT)
	fdtest.Eventually(t, "the worker that goes on has a connection", func() bool {
		pid, _ := answer(t, w.give(t))
		return pid == first
	})
	w.finish(t)
	w.wantTroubles(t)
}

// TestBusyWorker: what a worker leaves in its queue while it does something else goes to
// a free one.
func TestBusyWorker(t *testing.T) {
	fdtest.NoLeaks(t)
	w := runWorkers(t, 2, nil, "sticks")
	for range 20 {
		answer(t, w.give(t))
	}
	for _, s := range w.Status() {
		if want := map[int]int{0: 1, 1: 19}[s.Index]; s.Handed != want {
			t.Errorf("worker %d has been handed %d connections that it has received, want %d", s.Index, s.Handed, want)
		}
	}
}

// TestSlowWorkers: if all workers are slow, none of them rests.
func TestSlowWorkers(t *testing.T) {
	fdtest.NoLeaks(t)
	w := runWorkers(t, 2, nil, "slow")
	var clients []*bufio.Reader
	for range 12 {
		clients = append(clients, w.give(t))
	}
	shares := map[int]int{}
	for _, c := range clients {
		pid, _ := answer(t, c)
		shares[pid]++
	}
	if len(shares) != 2 {
		t.Errorf("the shares of two workers that are slow are %v; want both to have some", shares)
	}
	w.finish(t)
	w.wantTroubles(t)
}

func stop(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// Each thread: one that is about to stop can still receive.
	fdtest.Eventually(t, "the worker is stopped", func() bool {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid)) // proc_pid_stat(5)
		return err == nil && !slices.ContainsFunc(stats, func(path string) bool {
			stat, err := os.ReadFile(path)
			return err == nil && !strings.Contains(string(stat), ") T ")
		})
	})
}

// TestKilledWorker: what a worker has not received when it is killed is not lost, and
// another one takes its place.
func TestKilledWorker(t *testing.T) {
	fdtest.NoLeaks(t)
	w := runWorkers(t, 1, nil)
	first, _ := answer(t, w.give(t))
	stop(t, first)
	client := w.give(t)
	_ = unix.Kill(first, unix.SIGKILL)
	if pid, _ := answer(t, client); pid == first {
		t.Errorf("worker %d has answered, which is dead", pid)
	}
	w.finish(t)
}

// TestLeases: a connection that a worker has received and not touched when it ends goes
// to another one; one that it has answered is lost, and that is said.
func TestLeases(t *testing.T) {
	fdtest.NoLeaks(t)
	patient := func(w *exec.Workers) { w.ReadyTimeout = time.Minute } // none without a lease
	w := runWorkers(t, 2, patient, "ready", "dies")
	fdtest.Eventually(t, "a worker has died", func() bool {
		if _, text := answer(t, w.give(t)); !strings.Contains(text, "FDKIT_LEASE") {
			t.Errorf("the worker was told %s; want a lease", text)
		}
		return w.see(func() bool { return len(w.gone) > 0 })()
	})
	w.finish(t)

	w = runWorkers(t, 1, patient, "ready", "dies", "late")
	client := w.give(t)
	if text, err := client.ReadString('\n'); text != "half an ans" || err != io.EOF {
		t.Errorf("the client has %q and %v; want what the worker had said, and the end", text, err)
	}
	fdtest.Eventually(t, "the loss is told", w.see(func() bool { return len(w.troubles) > 1 }))
	w.wantTroubles(t, "has ended with it", "has ended at once (exit 3)")
}

// TestRenew: all workers are replaced, and no connection is lost.
func TestRenew(t *testing.T) {
	fdtest.NoLeaks(t)
	w := runWorkers(t, 3, nil)
	old, _ := answer(t, w.give(t))
	w.Renew()
	fdtest.Eventually(t, "three workers have ended", func() bool {
		answer(t, w.give(t))
		return w.see(func() bool { return len(w.gone) == 3 })()
	})
	if pid, _ := answer(t, w.give(t)); pid == old {
		t.Errorf("worker %d answers still", pid)
	}
	if n := w.Running(); n != 3 {
		t.Errorf("Running() = %d, want 3", n)
	}
	w.finish(t)
	w.wantTroubles(t)
	for pid, status := range w.gone {
		if status != 0 {
			t.Errorf("worker %d has ended with %s; want exit 0", pid, exec.StatusText(status))
		}
	}
}

func TestMaxRequests(t *testing.T) {
	w := runWorkers(t, 1, func(w *exec.Workers) { w.MaxRequests = 5 })
	by := map[int]int{}
	for range 20 {
		pid, _ := answer(t, w.give(t))
		by[pid]++
	}
	for pid, n := range by {
		if n > 5 {
			t.Errorf("worker %d has answered %d times, want at most 5", pid, n)
		}
	}
	w.finish(t)
	w.wantTroubles(t)
}

// TestMaxRequestsHash: what waits for a worker that is replaced goes to the new one, once.
func TestMaxRequestsHash(t *testing.T) {
	fdtest.NoLeaks(t)
	w := runWorkers(t, 1, func(w *exec.Workers) { w.MaxRequests, w.Balance = 1, exec.HashSource })
	var clients []*bufio.Reader
	for range 20 {
		clients = append(clients, w.give(t))
	}
	for _, c := range clients {
		answer(t, c)
	}
	w.finish(t)
	w.wantTroubles(t)
}

func TestMaxAge(t *testing.T) {
	w := runWorkers(t, 1, func(w *exec.Workers) { w.MaxAge = 50 * time.Millisecond })
	fdtest.Eventually(t, "three workers have been started", w.see(func() bool { return len(w.pids) >= 3 }))
	answer(t, w.give(t))
	w.finish(t)
}

// TestKeys: each key has a worker of its own, which ends when it is idle.
func TestKeys(t *testing.T) {
	fdtest.NoLeaks(t)
	w := runWorkers(t, 2, func(w *exec.Workers) { w.Key, w.Idle = "FDKIT_KEY", time.Second })
	a, text := answer(t, w.give(t, "FDKIT_KEY=../a b"))
	if !strings.Contains(text, "../a b") {
		t.Errorf("the worker says %s; want its key", text)
	}
	b, _ := answer(t, w.give(t, "FDKIT_KEY=b"))
	again, _ := answer(t, w.give(t, "FDKIT_KEY=../a b"))
	if a == b || a != again {
		t.Errorf("workers %d, %d, %d have answered for keys a, b, a", a, b, again)
	}
	if text, err := w.give(t, "FDKIT_KEY=c").ReadString('\n'); err != io.EOF || text != "" {
		t.Errorf("a third key has %q, %v; want its connection closed", text, err)
	}
	w.wantTroubles(t, `there are workers for 2 keys already, and none for FDKIT_KEY="c"`)
	fdtest.Eventually(t, "idle workers end", w.see(func() bool { return len(w.gone) == 2 }))
	if c, _ := answer(t, w.give(t, "FDKIT_KEY=c")); c == a || c == b {
		t.Errorf("worker %d has answered for key c", c)
	}
	w.finish(t)
}

// TestHash: one client, or one key, has always the same worker.
func TestHash(t *testing.T) {
	for variable, rule := range map[string]exec.Balance{"TCPREMOTEIP=192.0.2.": exec.HashSource, "FDKIT_KEY=job ": exec.HashKey} {
		w := runWorkers(t, 4, func(w *exec.Workers) { w.Balance = rule })
		by := map[string]int{}
		for i := range 64 {
			from := variable + strconv.Itoa(i%16)
			pid, _ := answer(t, w.give(t, from))
			if before := by[from]; before != 0 && before != pid {
				t.Errorf("%s is answered by %d and %d", from, before, pid)
			}
			by[from] = pid
		}
		different := map[int]bool{}
		for _, pid := range by {
			different[pid] = true
		}
		if len(different) < 2 {
			t.Errorf("one worker has all of 16 values of %s", variable)
		}
		w.finish(t)
		w.wantTroubles(t)
	}
}

// TestFailingWorker: a worker that fails at once is started less and less often, and its
// connection waits.
func TestFailingWorker(t *testing.T) {
	w := runWorkers(t, 1, nil, "fails")
	w.give(t)
	fdtest.Eventually(t, "three workers have been started", w.see(func() bool { return len(w.pids) >= 3 }))
	w.wantTroubles(t, "has ended at once (exit 1); the next is started in 100ms")
	w.Workers.Signal(syscall.SIGTERM)
	if err := fdtest.Soon(t, "the end of Run", w.ended); err != nil {
		t.Errorf("Run() = %v", err)
	}
	w.wantTroubles(t, "has ended at once", "a connection is lost")
}

// TestStopOfFailingWorkers: what none of them can have does not hold up the end.
func TestStopOfFailingWorkers(t *testing.T) {
	fdtest.NoLeaks(t)
	w := runWorkers(t, 2, nil, "fails")
	w.give(t)
	fdtest.Eventually(t, "six workers have been started", w.see(func() bool { return len(w.pids) >= 6 }))
	w.Workers.Stop()
	if err := fdtest.Soon(t, "the end of Run", w.ended); err != nil {
		t.Errorf("Run() = %v", err)
	}
	if last := w.troubles[len(w.troubles)-1]; !strings.Contains(last, "a connection is lost") {
		t.Errorf("told at last of %q", last)
	}
}

// TestServedWorker: a worker that has served somebody and then ends does not fail at once,
// and what it has said before its end is heard.
func TestServedWorker(t *testing.T) {
	fdtest.NoLeaks(t)
	w := runWorkers(t, 1, func(w *exec.Workers) { w.ReadyTimeout = time.Minute }, "ready", "served")
	for range 20 {
		answer(t, w.give(t))
	}
	w.finish(t)
	w.wantTroubles(t)
}

func TestReadyTimeout(t *testing.T) {
	w := runWorkers(t, 1, func(w *exec.Workers) { w.ReadyTimeout = 50 * time.Millisecond }, "lingers")
	fdtest.Eventually(t, "a worker is killed", w.see(func() bool { return len(w.gone) > 0 }))
	if !w.see(func() bool {
		return len(w.troubles) > 0 && strings.Contains(w.troubles[0], "has not said READY in 50ms")
	})() {
		t.Errorf("told of %q", w.troubles)
	}
}

func TestBabblingWorker(t *testing.T) {
	w := runWorkers(t, 1, nil, "babbles")
	answer(t, w.give(t))
	w.finish(t)
	if !w.see(func() bool { return len(w.troubles) >= 2 && strings.Contains(w.troubles[1], `"READY=x"`) })() {
		t.Errorf("told of %q; want the words that are none", w.troubles)
	}
}

// TestFullWorker: a worker that keeps its connections is given none that it has no
// descriptor for.
func TestFullWorker(t *testing.T) {
	limit := exec.Limit{Resource: unix.RLIMIT_NOFILE, Cur: 40, Max: 40}
	w := runWorkers(t, 1, func(w *exec.Workers) { w.Confine.Limits = []exec.Limit{limit} }, "keeps")
	for range 40 {
		w.give(t)
	}
	var pid int
	fdtest.Eventually(t, "the worker runs", w.see(func() bool {
		if len(w.pids) > 0 {
			pid = w.pids[0]
		}
		return pid != 0
	}))
	fdtest.Eventually(t, "the pool sees that the worker is full", func() bool {
		has, statErr := os.Stat(fmt.Sprintf("/proc/%d/fd", pid))
		n, err := unix.IoctlGetInt(w.end.FD, unix.SIOCOUTQ)
		return statErr == nil && has.Size() >= 20 && err == nil && n > 0
	})
	if info, err := os.Stat(fmt.Sprintf("/proc/%d/fd", pid)); err != nil || info.Size() > 40-4 { // what is on its way is not seen
		t.Errorf("the worker has %d descriptors open, %v; want some of 40 left", info.Size(), err)
	}
	fdtest.Eventually(t, "that is said", w.see(func() bool { return len(w.troubles) > 0 }))
	for range 3 { // also while a connection waits that no worker can have
		asked := make(chan int)
		go func() { asked <- len(w.Status()) }()
		select {
		case n := <-asked:
			if n != 1 {
				t.Errorf("Status() tells of %d workers, want 1", n)
			}
		case <-time.After(fdtest.Limit):
			t.Fatal("Status() does not return while the worker is full")
		}
	}
	w.wantTroubles(t, "has come near its limit of open files")
}

func TestShare(t *testing.T) {
	fdtest.NoLeaks(t)
	w := runWorkers(t, 4, func(w *exec.Workers) { w.Share, w.QueueFD = true, 5 })
	for range 20 {
		answer(t, w.give(t))
	}
	w.finish(t)
	w.wantTroubles(t)
}

// TestForeignLease: the number of a lease that comes with a connection is another pool's.
func TestForeignLease(t *testing.T) {
	fdtest.NoLeaks(t)
	w := runWorkers(t, 1, func(w *exec.Workers) { w.ReadyTimeout = time.Minute }, "ready")
	for range 10 {
		_, text := answer(t, w.give(t, "FDKIT_LEASE=77", "FDKIT_KEY=k", "FDKIT_LEASE=", "FDKIT_LEASE=78"))
		if strings.Count(text, "FDKIT_LEASE=") != 1 || strings.Contains(text, "=77") || strings.Contains(text, "=78") || !strings.Contains(text, `FDKIT_KEY=k\x00FDKIT_LEASE=`) {
			t.Errorf("the worker was told %s; want its key, and one lease, which is its own", text)
		}
	}
	fdtest.Eventually(t, "nothing is on lease", func() bool { return w.Status()[0].Leases == 0 })
	w.finish(t)
	w.wantTroubles(t)

	w = runWorkers(t, 1, nil) // who does not ask has none
	if _, text := answer(t, w.give(t, "FDKIT_LEASE=77", "FDKIT_KEY=k")); !strings.Contains(text, `"FDKIT=1\x00FDKIT_KEY=k\x00"`) {
		t.Errorf("the worker was told %s; want no lease", text)
	}
	w.finish(t)
}

// TestSlowStart: a worker that takes seconds to start loses what it was given to others, and
// has its turn as soon as it receives.
func TestSlowStart(t *testing.T) {
	w := runWorkers(t, 2, nil)
	fdtest.Eventually(t, "the workers run", func() bool { return w.Running() == 2 })
	starting := w.Status()[0].PID
	stop(t, starting)
	for range 6 {
		if pid, _ := answer(t, w.give(t)); pid == starting {
			t.Errorf("worker %d has answered, which is stopped", pid)
		}
	}
	_ = unix.Kill(starting, unix.SIGCONT)
	a, _ := answer(t, w.give(t))
	if b, _ := answer(t, w.give(t)); a != starting && b != starting {
		t.Errorf("worker %d has not had its turn, which has only started slowly", starting)
	}
	w.finish(t)
	w.wantTroubles(t)
}

// TestClosedQueue: a worker that closes its queue and lives on is replaced, and what is in
// the queue is not lost.
func TestClosedQueue(t *testing.T) {
	for name, set := range map[string]func(*exec.Workers){
		"one":  func(w *exec.Workers) { w.N = 1 },
		"two":  func(*exec.Workers) {},
		"hash": func(w *exec.Workers) { w.Balance = exec.HashSource },
		"key":  func(w *exec.Workers) { w.Key = "FDKIT_KEY" },
	} {
		t.Run(name, func(t *testing.T) {
			fdtest.NoLeaks(t)
			w := runWorkers(t, 2, set, "deserts")
			for range 7 {
				answer(t, w.give(t))
			}
			if w.see(func() bool {
				return slices.ContainsFunc(w.troubles, func(text string) bool { return !strings.Contains(text, "has closed its queue") }) || len(w.pids) < 3
			})() {
				t.Errorf("%d workers were started, and %q is told; want more than two, and that workers have closed their queues", len(w.pids), w.troubles)
			}
		})
	}
}
