//go:build linux

package queue

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/hint"
	"fdkit/internal/scm"
)

func TestParseRegister(t *testing.T) {
	for _, test := range []struct {
		text  string
		fds   int
		roles string // of the entries, each with the number of its sockets; "": not valid
	}{
		{"listen:30000:0", 1, "listen 0"},
		{"listen:30000:0 socket:0:0 socket:2049:17 pool:0:0", 4, "listen 2,pool 0"},
		{"holiday:1:2 socket:0:0", 2, "holiday 1"},
		{"", 0, ""},
		{"", 1, ""},
		{"listen:0:0", 2, ""},
		{"listen:0:0 socket:0:0", 1, ""},
		{"socket:0:0", 1, ""},
		{"listen:0", 1, ""},
		{"listen:0:0:0", 1, ""},
		{":0:0", 1, ""},
		{"listen:-1:0", 1, ""},
		{"listen:0:x", 1, ""},
		{"listen:0:0  pool:0:0", 2, ""},
		{"listen:9223372036855:0", 1, ""}, // more than a time.Duration holds
		{"listen:0:0 socket:18446744073709551615:0", 2, "listen 1"},
	} {
		entries, valid := parseRegister(scm.AppendVar([]byte(scm.Begin), registerVar, test.text), make([]int, test.fds))
		var roles []string
		for _, e := range entries {
			roles = append(roles, fmt.Sprintf("%s %d", e.role, len(e.sockets)))
		}
		if got := strings.Join(roles, ","); valid != (test.roles != "") || valid && got != test.roles {
			t.Errorf("parseRegister(%q) with %d descriptors = %q, %v; want %q", test.text, test.fds, got, valid, test.roles)
		}
	}
}

// FuzzParseRegister parses anything: what is valid is written and read as the same.
func FuzzParseRegister(f *testing.F) {
	f.Add("REGISTER=listen:30000:0 socket:0:0 pool:0:0\x00", 3)
	f.Add("REGISTER=socket:0:0\x00", 1)
	f.Add("REGISTER=listen:9223372036854:1 socket:18446744073709551615:1\x00", 2)
	f.Fuzz(func(t *testing.T, vars string, count int) {
		if count < 0 || count > scm.MaxFDs {
			return
		}
		fds := make([]int, count)
		for i := range fds {
			fds[i] = i
		}
		entries, valid := parseRegister([]byte(scm.Begin+vars), fds)
		if !valid {
			return
		}
		payload, same := (&register{entries: entries}).message()
		again, valid := parseRegister(payload, same)
		twice, _ := (&register{entries: again}).message()
		if !valid || string(twice) != string(payload) || fmt.Sprint(same) != fmt.Sprint(fds) {
			t.Errorf("parseRegister(%q) with %d descriptors is written %q with %v, and that is read as %q, %v", vars, count, payload, same, twice, valid)
		}
	})
}

// listening returns a listening socket, and its address.
func listening(t *testing.T) (*fdtest.End, string) {
	t.Helper()
	fd, address, err := aListener()
	if err != nil {
		t.Fatal(err)
	}
	end := fdtest.Dup(t, fd)
	closeAll(fd)
	return end, address
}

func aListener() (fd int, address string, err error) {
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, "", err
	}
	if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err == nil {
		err = unix.Listen(fd, 16)
	}
	sa, nameErr := unix.Getsockname(fd)
	if err = errors.Join(err, nameErr); err != nil {
		return -1, "", err
	}
	return fd, fmt.Sprintf("127.0.0.1:%d", sa.(*unix.SockaddrInet4).Port), nil
}

// enterAs is what a participant does with the register, for enter with the time for which
// its new listening socket is to be kept. It returns the answer.
func enterAs(command, keep string, q *Queue) string {
	r, err := q.OpenRegister(Listening, command == "takeover")
	if err != nil {
		return err.Error()
	}
	defer r.Close()
	if command == "forge" {
		for _, e := range r.entries {
			e.tell(takeoverVar)
		}
		return "forged"
	}
	fd, address, err := aListener()
	if err != nil {
		return err.Error()
	}
	d, err := time.ParseDuration(keep)
	if err == nil {
		_, err = r.Enter(d, []Socket{{FD: fd}})
	}
	if err != nil {
		return err.Error()
	}
	return address
}

// refuses tells whether nobody listens at the address.
func refuses(address string) bool {
	conn, err := net.Dial("tcp", address)
	if err == nil {
		conn.Close()
	}
	return errors.Is(err, unix.ECONNREFUSED)
}

// enter enters a side in the register.
func enter(t *testing.T, s *side, role Role, takeover bool, keep time.Duration, sockets ...int) *Seat {
	t.Helper()
	r, err := s.OpenRegister(role, takeover)
	if err != nil {
		t.Fatalf("OpenRegister(%s, %v) = %v, want nil", role, takeover, err)
	}
	defer r.Close()
	var all []Socket
	for _, fd := range sockets {
		all = append(all, Socket{FD: fd})
	}
	seat, err := r.Enter(keep, all)
	if err != nil {
		t.Fatalf("Enter(%v, %v) = %v, want nil", keep, all, err)
	}
	return seat
}

// entered returns what the register has, with the numbers of sockets.
func entered(t *testing.T, s *side) string {
	t.Helper()
	r, err := s.named.lockRegister(registerTime)
	if err != nil {
		t.Fatalf("lockRegister() = %v, want nil", err)
	}
	defer r.unlock()
	var all []string
	for _, e := range r.entries {
		all = append(all, fmt.Sprintf("%s %d", e.role, len(e.sockets)))
	}
	return strings.Join(all, ",")
}

// available returns copies of the sockets that a listener may have.
func available(t *testing.T, s *side, takeover bool) (fds []int) {
	t.Helper()
	r, err := s.OpenRegister(Listening, takeover)
	if err != nil {
		t.Fatalf("OpenRegister() = %v, want nil", err)
	}
	defer r.Close()
	sockets, err := r.Sockets()
	if err != nil {
		t.Fatalf("Sockets() = %v, want nil", err)
	}
	for _, socket := range sockets {
		fds = append(fds, socket.FD)
		t.Cleanup(func() { closeAll(socket.FD) })
	}
	return fds
}

func TestTakeOver(t *testing.T) {
	fdtest.NoLeaks(t)
	path := aPath(t)
	socket, _ := listening(t)
	first := openToSend(t, path, Options{})
	old := enter(t, first, Listening, false, 0, socket.FD)
	pool := enter(t, openToReceive(t, path, Options{}), Pooling, true, 0)
	second := openToSend(t, path, Options{})
	if fds := available(t, second, false); len(fds) != 0 {
		t.Errorf("without takeover there are %d sockets of one who lives, want none", len(fds))
	}
	fds := available(t, second, true)
	if len(fds) != 1 || !fdtest.SameFile(fds[0], socket.FD) {
		t.Fatalf("Sockets() gives %v, want a copy of %d", fds, socket.FD)
	}
	seat := enter(t, second, Listening, true, 0, fds[0])
	select {
	case <-old.Replaced():
		t.Fatal("the old one is told before the new one has begun")
	default:
	}
	told := make(chan []Predecessor, 1)
	go func() { told <- seat.TakeOver(fdtest.Limit) }()
	fdtest.Soon(t, "the old one is told", old.Replaced())
	if old.By() != os.Getpid() {
		t.Errorf("By() = %d, want %d", old.By(), os.Getpid())
	}
	old.Leave()
	if all := fdtest.Soon(t, "TakeOver returns", told); len(all) != 1 || all[0] != (Predecessor{os.Getpid(), true}) {
		t.Errorf("TakeOver() = %+v, want one of process %d that has left", all, os.Getpid())
	}
	if got := entered(t, first); got != "pool 0,listen 1" {
		t.Errorf("the register has %q, want the pool and the new one", got)
	}
	for name, other := range map[string]*Seat{"the pool": pool, "the new one": seat} {
		select {
		case <-other.Replaced():
			t.Errorf("%s is told that it is replaced", name)
		default:
		}
	}
}

// Who takes over and does not find the old one ready to go is not held up.
func TestTakeOverOfStopped(t *testing.T) {
	fdtest.NoLeaks(t)
	path := aPath(t)
	enter(t, openToSend(t, path, Options{}), Listening, false, 0)
	seat := enter(t, openToSend(t, path, Options{}), Listening, true, 0)
	if all := seat.TakeOver(time.Millisecond); len(all) != 1 || all[0].Left {
		t.Errorf("TakeOver() = %+v, want one that has not left", all)
	}
}

// What a killed writer leaves, and what others write there, harms nothing.
func TestRegisterSurvives(t *testing.T) {
	message := func(text string) []byte { return scm.AppendVar([]byte(scm.Begin), registerVar, text) }
	for name, leave := range map[string]func(put func(payload []byte, fds ...int), line int){
		"the old one": func(put func([]byte, ...int), line int) {
			// As write does, before it takes the old one away: the last counts.
			put(message("pool:0:0 pool:0:0"), line, line)
			put(message("pool:0:0"), line)
		},
		"junk behind":    func(put func([]byte, ...int), line int) { put([]byte("READY"), line) },
		"nothing behind": func(put func([]byte, ...int), _ int) { put(nil) },
		"false words":    func(put func([]byte, ...int), _ int) { put(message("pool:0:0")) },
	} {
		t.Run(name, func(t *testing.T) {
			fdtest.NoLeaks(t)
			s := openToReceive(t, aPath(t), Options{})
			enter(t, s, Pooling, false, 0)
			r, err := s.named.lockRegister(registerTime)
			if err != nil {
				t.Fatal(err)
			}
			line := fdtest.Dup(t, r.entries[0].line)
			leave(func(payload []byte, fds ...int) {
				if _, err := scm.NewSender(s.named.receive, nil).TransmitNow(payload, fds, nil); err != nil {
					t.Errorf("TransmitNow(%q) = %v, want nil", payload, err)
				}
			}, line.FD)
			r.unlock()
			for range 2 {
				if got := entered(t, s); got != "pool 0" {
					t.Errorf("the register has %q, want what was there: %q", got, "pool 0")
				}
			}
		})
	}
}

// Who looks at the register as fdkit queue does hides it for as long.
func TestRegisterLookedAt(t *testing.T) {
	fdtest.NoLeaks(t)
	path := aPath(t)
	s := openToReceive(t, path, Options{})
	enter(t, s, Pooling, false, 0)
	if err := unix.SetsockoptInt(s.named.send, unix.SOL_SOCKET, unix.SO_PEEK_OFF, 1000); err != nil {
		t.Fatal(err)
	}
	if r, err := s.named.lockRegister(registerTime); err == nil {
		t.Errorf("the register has %d entries while it is hidden, want an error", len(r.entries))
		r.unlock()
	}
	if err := unix.SetsockoptInt(s.named.send, unix.SOL_SOCKET, unix.SO_PEEK_OFF, -1); err != nil {
		t.Fatal(err)
	}
	if got := entered(t, s); got != "pool 0" {
		t.Errorf("the register has %q, want what was there", got)
	}
}

func TestRegisterFull(t *testing.T) {
	fdtest.NoLeaks(t)
	path := aPath(t)
	s := openToSend(t, path, Options{})
	enter(t, openToReceive(t, path, Options{}), Pooling, false, 0)
	socket, address := listening(t)
	r, err := s.OpenRegister(Listening, false)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Enter(0, slices.Repeat([]Socket{{FD: socket.FD}}, scm.MaxFDs))
	r.Close()
	if !errors.Is(err, errNoRegisterRoom) {
		t.Errorf("Enter() with %d sockets = %v, want %v", scm.MaxFDs, err, errNoRegisterRoom)
	}
	if got := entered(t, s); got != "pool 0" {
		t.Errorf("the register has %q, want what was there", got)
	}
	socket.Close()
	if !refuses(address) {
		t.Error("a socket that was not entered stays open")
	}
}

// A process that is stopped while it has the register open holds nobody up for ever.
func TestRegisterLocked(t *testing.T) {
	fdtest.NoLeaks(t)
	path := aPath(t)
	r, err := openToSend(t, path, Options{}).OpenRegister(Listening, false)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	other := openToSend(t, path, Options{})
	if _, err := other.named.lockRegister(time.Millisecond); !errors.Is(err, errLocked) || !strings.Contains(hint.Of(err), "kill -CONT") {
		t.Errorf("lockRegister() = %v with hint %q, want %v", err, hint.Of(err), errLocked)
	}
}

func TestNoRegister(t *testing.T) {
	fdtest.NoLeaks(t)
	_, theirs := fdtest.Pair(t, unix.SOCK_SEQPACKET)
	s := openToSend(t, number(theirs.Take()), Options{})
	if _, err := s.OpenRegister(Listening, true); !errors.Is(err, ErrNoRegister) {
		t.Errorf("OpenRegister() of a socket pair = %v, want %v", err, ErrNoRegister)
	}
}

// notices collects what a participant is told.
type notices struct {
	mu   sync.Mutex
	text []string
}

func (n *notices) add(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.text = append(n.text, text)
}

func (n *notices) has(text string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Contains(strings.Join(n.text, "\n"), text)
}

// The sockets of one who is killed are kept for as long as asked for.
func TestKeep(t *testing.T) {
	for _, test := range []struct {
		keep    time.Duration
		expires bool
	}{{0, true}, {20 * time.Millisecond, true}, {time.Hour, false}} {
		t.Run(test.keep.String(), func(t *testing.T) {
			fdtest.NoLeaks(t)
			path := aPath(t)
			listener := join(t, "send", path, nil)
			listener.tell(fmt.Sprintf("enter %v", test.keep))
			address := listener.line()
			var said notices
			early := openToReceive(t, path, Options{Keeping: said.add})
			pool := join(t, "receive", path, nil)
			if refuses(address) {
				t.Fatalf("nobody listens at %s", address)
			}
			pool.kill() // first: one of those who live says what they do
			listener.kill()
			if test.expires {
				fdtest.Eventually(t, "clients are refused", func() bool { return refuses(address) })
				fdtest.Eventually(t, "the register is empty", func() bool { return entered(t, early) == "" })
				if test.keep > 0 {
					fdtest.Eventually(t, "it is said", func() bool {
						return said.has("listened at "+address+" has died") && said.has("listen at "+address+": closed")
					})
				}
				return
			}
			fdtest.Eventually(t, "it is said", func() bool { return said.has("listened at " + address + " has died") })
			// Who comes later is as good.
			late := openToSend(t, path, Options{})
			_, _ = early.Close()
			if refuses(address) {
				t.Error("the socket was not kept")
			}
			// It goes on with the socket, which is no longer the dead one's.
			fds := available(t, late, false)
			if len(fds) != 1 {
				t.Fatalf("there are %d sockets, want 1", len(fds))
			}
			enter(t, late, Listening, false, 0, fds[0])
			if got := entered(t, late); got != "listen 1" {
				t.Errorf("the register has %q, want %q", got, "listen 1")
			}
		})
	}
}

// An end that is announced keeps nothing.
func TestKeepNotAtLeave(t *testing.T) {
	fdtest.NoLeaks(t)
	path := aPath(t)
	s, r := openToSend(t, path, Options{}), openToReceive(t, path, Options{})
	socket, address := listening(t)
	seat := enter(t, s, Listening, false, time.Hour, socket.FD)
	socket.Close()
	if refuses(address) {
		t.Fatal("the register has no copy of the socket")
	}
	seat.Leave()
	if !refuses(address) || entered(t, r) != "" {
		t.Errorf("after Leave the register has %q, want nothing", entered(t, r))
	}
	enter(t, s, Listening, false, time.Hour)
	_, _ = s.Close()
	if got := entered(t, r); got != "" {
		t.Errorf("after Close the register has %q, want nothing", got)
	}
}

// Another user who may attach may not take over.
func TestTakeOverByOther(t *testing.T) {
	fdtest.NeedsRoot(t)
	fdtest.NoLeaks(t)
	path := openDir(t) + "/q"
	var said notices
	s := openToSend(t, path, Options{Mode: 0o666, Keeping: said.add})
	socket, _ := listening(t)
	seat := enter(t, s, Listening, false, 0, socket.FD)
	nobody := join(t, "send", path, asNobody(t))
	nobody.ask("takeover", fmt.Sprintf("process %d is of uid 0: only the same user and root may take its place", os.Getpid()))
	nobody.ask("forge", "forged")
	fdtest.Eventually(t, "it is said", func() bool {
		return said.has(fmt.Sprintf("process %d of uid %d may not take this one's place", nobody.cmd.Process.Pid, fdtest.Nobody))
	})
	select {
	case <-seat.Replaced():
		t.Error("another user has replaced this process")
	default:
	}
	// What it has entered is not taken for more than it is.
	nobody.tell("enter 1h")
	nobody.line()
	if fds := available(t, s, true); len(fds) != 1 || !fdtest.SameFile(fds[0], socket.FD) {
		t.Errorf("Sockets() gives %d sockets, want the one of the same user", len(fds))
	}
}
