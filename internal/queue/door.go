//go:build linux

package queue

import (
	"errors"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/interrupt"
	"fdkit/internal/scm"
)

// The variables of the attach protocol, fdkit-protocol(7).
const (
	attachVar   = "ATTACH"   // asks for the queue; its value is the token
	attachedVar = "ATTACHED" // grants it; its value proves who answers
	refusedVar  = "REFUSED"  // refuses it; its value is the reason
	fdNamesVar  = "FDNAMES"  // what the descriptors are, between colons
)

const (
	answerTime  = 2 * time.Second // for either side of the attach protocol
	doorBacklog = 128             // newcomers at once
	// silentNewcomers may be connected at once and not have asked yet, of each user:
	// more are turned away, so that no user can keep the others out.
	silentNewcomers = 16
)

// A door lets newcomers attach: it listens on sockets and answers each
// connection with descriptors.
type door struct {
	calls  interrupt.Calls
	done   sync.WaitGroup
	mu     sync.Mutex
	silent map[uint32]int // newcomers that have not asked yet, by uid
	answer func(conn int, request []byte) (reply []byte, fds []int, after func())
}

// open answers on the listening socket fd until shut.
func (d *door) open(fd int) {
	d.done.Go(func() {
		for {
			conn, err := d.accept(fd)
			if err != nil {
				return
			}
			who, err := unix.GetsockoptUcred(conn, unix.SOL_SOCKET, unix.SO_PEERCRED)
			if err != nil || !d.admit(who.Uid) {
				_ = unix.Close(conn)
				continue
			}
			d.done.Go(func() {
				d.serve(conn, who.Uid)
				_ = unix.Close(conn)
			})
		}
	})
}

// admit tells whether one more newcomer of that user may be silent.
func (d *door) admit(uid uint32) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.silent == nil {
		d.silent = map[uint32]int{}
	}
	if d.silent[uid] >= silentNewcomers {
		return false
	}
	d.silent[uid]++
	return true
}

// asked ends what admit began.
func (d *door) asked(uid uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.silent[uid]--; d.silent[uid] == 0 {
		delete(d.silent, uid)
	}
}

// accept sleeps in accept4(2) itself, so that of all processes that share a door
// one is woken. It returns an error only when the door is shut.
func (d *door) accept(fd int) (int, error) {
	if err := d.calls.Enter(); err != nil {
		return -1, err
	}
	defer d.calls.Exit()
	for {
		conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if err == nil {
			return conn, nil
		}
		if d.calls.Stopped() {
			return -1, interrupt.ErrStopped
		}
		if err != unix.EINTR && err != unix.ECONNABORTED {
			time.Sleep(20 * time.Millisecond) // EMFILE and the like heal with time
		}
	}
}

func (d *door) serve(conn int, uid uint32) {
	request, fds, err := receiveWithin(&d.calls, conn, answerTime)
	d.asked(uid)
	closeAll(fds...) // nobody needs to send us any
	if err != nil {
		return // it went away: a probe, or one that was killed
	}
	reply, fds, after := d.answer(conn, request)
	if reply == nil {
		return
	}
	// One message into an empty socket: it never blocks.
	_ = scm.NewSender(conn, nil).Send(reply, fds...)
	if after != nil {
		after()
	}
}

// shut stops answering and returns when the last answer is given.
func (d *door) shut() {
	d.calls.Stop()
	d.done.Wait()
}

// knock asks at conn, a connection to a door, for a queue. It returns errNoAnswer
// if the other side goes away or is silent, and its reason if it refuses.
func knock(conn int, token string, p *patience) (reply []byte, fds []int, err error) {
	request := scm.AppendVar([]byte(scm.Begin), attachVar, token)
	if err := scm.NewSender(conn, nil).Send(request); err != nil {
		return nil, nil, errNoAnswer
	}
	reply, fds, err = receiveWithin(p.calls, conn, answerTime)
	if err != nil {
		return nil, nil, err
	}
	if reason, ok := scm.Var(reply, refusedVar); ok {
		closeAll(fds...)
		return nil, nil, errors.New("refused: " + reason)
	}
	return reply, fds, nil
}

func receiveWithin(calls *interrupt.Calls, fd int, limit time.Duration) (payload []byte, fds []int, err error) {
	ready, err := calls.Wait(fd, unix.POLLIN, limit)
	if err != nil {
		return nil, nil, err
	}
	if !ready {
		return nil, nil, errNoAnswer
	}
	var m scm.Message
	came, err := scm.NewReceiver(fd, nil).ReceiveNow(&m)
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || err == nil && !came {
		return nil, nil, errNoAnswer
	}
	return m.Payload, m.FDs, err
}
