//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// question is how many bytes a client sends, and has as its answer.
const question = 64

// holderName is the argument with which this program is started again as a holder.
const holderName = "holder"

// order is what a holder is to do.
type order struct {
	Open   int    // connections, from Source to Address
	Ask    int    // questions, over all connections in turn, in a random order
	Window int    // connections that are opened, or asked, at once
	Source string // the client's address
	Target string // ADDRESS:PORT
}

// answer is what has come of it.
type answer struct {
	Seconds   float64
	Answered  int            // questions; a connection is open when its first one is
	Failed    map[string]int // by error
	Latencies []int64        // of questions, nanoseconds
}

// holder is a process of many client connections, as one has no more than its
// RLIMIT_NOFILE.
type holder struct {
	process *exec.Cmd
	orders  io.WriteCloser
	answers *json.Decoder
}

func startHolder() (*holder, error) {
	c := exec.Command("/proc/self/exe", holderName)
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &holder{c, stdin, json.NewDecoder(stdout)}, c.Start()
}

// do gives an order to each of the holders, and returns their answers when all have come.
func do(holders []*holder, of func(i int) order) ([]answer, error) {
	for i, h := range holders {
		if err := json.NewEncoder(h.orders).Encode(of(i)); err != nil {
			return nil, err
		}
	}
	answers := make([]answer, len(holders))
	for i, h := range holders {
		if err := h.answers.Decode(&answers[i]); err != nil {
			return nil, fmt.Errorf("holder %d: %w", i, err)
		}
	}
	return answers, nil
}

// end lets the holder close its connections.
func (h *holder) end() {
	_ = h.orders.Close()
	_ = h.process.Wait()
}

// hold is the holder's own main function.
func hold() {
	if err := obeyAll(); err != nil {
		fmt.Fprintln(os.Stderr, "bench: holder:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func obeyAll() error {
	h := held{buffer: make([]byte, question)}
	var err error
	if h.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	orders, answers := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var o order
		switch err := orders.Decode(&o); err {
		case nil:
		case io.EOF:
			return nil
		default:
			return err
		}
		a, err := h.obey(o)
		if err != nil {
			return err
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
}

type held struct {
	epoll  int
	conns  []int // descriptors
	next   int   // of conns, to be asked
	buffer []byte
}

// obey does what is ordered.
func (h *held) obey(o order) (a answer, err error) {
	a.Failed = map[string]int{}
	opening := o.Open > 0
	begin, asked := time.Now(), map[int]time.Time{} // by descriptor
	connecting := map[int]bool{}
	target, err := netip.ParseAddrPort(o.Target)
	if err != nil {
		return a, err
	}
	source, err := netip.ParseAddr(o.Source)
	if err != nil {
		return a, err
	}
	fail := func(fd int, err error) {
		a.Failed[err.Error()]++
		delete(asked, fd)
		delete(connecting, fd)
		_ = unix.Close(fd)
	}
	ask := func(fd int) {
		asked[fd] = time.Now()
		if n, err := unix.Write(fd, h.buffer); n != question {
			fail(fd, fmt.Errorf("write: %w", err))
		}
	}
	// In the order of opening, connections that one worker has taken at once would be asked
	// at once too, which is easier for it.
	if o.Ask > 0 {
		if len(h.conns) == 0 {
			return a, errors.New("no connection is open that could be asked")
		}
		random := rand.New(rand.NewPCG(1, uint64(len(h.conns)))) // the same for all contestants
		random.Shuffle(len(h.conns), func(i, j int) { h.conns[i], h.conns[j] = h.conns[j], h.conns[i] })
	}
	var events [128]unix.EpollEvent
	for {
		for len(connecting)+len(asked) < o.Window && (o.Open > 0 || o.Ask > 0) {
			if o.Open > 0 {
				o.Open--
				fd, err := h.connect(source, target)
				if err != nil {
					a.Failed[err.Error()]++
					continue
				}
				connecting[fd] = true
				continue
			}
			o.Ask--
			fd := h.conns[h.next%len(h.conns)]
			h.next++
			ask(fd)
		}
		if len(connecting)+len(asked) == 0 {
			break
		}
		n, err := unix.EpollWait(h.epoll, events[:], 10000)
		if err != nil && err != unix.EINTR {
			return a, err
		}
		if n == 0 {
			return a, fmt.Errorf("nothing has come for 10 s; %d are connecting, %d asked", len(connecting), len(asked))
		}
		for _, e := range events[:max(n, 0)] {
			fd := int(e.Fd)
			if connecting[fd] {
				if code, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); code != 0 {
					fail(fd, unix.Errno(code))
					continue
				}
				if e.Events&unix.EPOLLOUT == 0 {
					continue
				}
				delete(connecting, fd)
				if err := unix.EpollCtl(h.epoll, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: e.Fd}); err != nil {
					return a, err
				}
				h.conns = append(h.conns, fd)
				ask(fd)
				continue
			}
			n, err := unix.Read(fd, h.buffer)
			if n != question {
				fail(fd, fmt.Errorf("read %d bytes: %w", n, err))
				continue
			}
			a.Answered++
			if !opening {
				a.Latencies = append(a.Latencies, int64(time.Since(asked[fd])))
			}
			delete(asked, fd)
		}
	}
	a.Seconds = time.Since(begin).Seconds()
	return a, nil
}

// connect begins a connection.
func (h *held) connect(source netip.Addr, target netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	// The port is chosen by connect, so that each target has all of them, ip(7).
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: source.As4()}); err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: target.Addr().As4(), Port: int(target.Port())})
	}
	if err == nil || err == unix.EINPROGRESS {
		err = unix.EpollCtl(h.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(fd)})
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}
