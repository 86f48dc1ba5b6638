//go:build linux

package relay

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"fdkit/internal/interrupt"
	"fdkit/internal/proto"
	"fdkit/internal/scm"
)

// maxSenders is how many addresses are known at once to which answers can go. The one
// that has sent nothing for the longest time is forgotten first.
const maxSenders = 256

// sender is one who sends datagrams, as the target sees it: a socket, so that what is
// sent to it is for that one. All who have no address share one, as nothing can be sent
// to them.
type sender struct {
	Conn
	fd        int
	toward    *scm.Sender    // the target
	used      int            // it has sent the message of that number
	answers   sync.WaitGroup // done when no answer is passed on any more
	forgotten atomic.Bool
}

// passDatagrams passes datagrams on until Stop.
func (r *Relay) passDatagrams() error {
	receive, err := scm.NewExactReceiver(r.listener)
	if err != nil {
		return err
	}
	senders := map[string]*sender{}
	defer func() {
		for source := range senders {
			forget(senders, source)
		}
	}()
	nobody := &Conn{relay: r}
	var m scm.Message
	for number := 1; ; number++ {
		came, err := r.nextDatagram(r.listener, receive, &m)
		if _, lost := errors.AsType[*scm.LostError](err); lost {
			r.on.Failed(nobody, err)
			continue
		} else if err != nil {
			return err
		} else if !came {
			continue
		}
		s := senders[receive.Source()]
		if s == nil {
			if len(senders) >= maxSenders {
				forget(senders, idlest(senders))
			}
			if s, err = r.newSender(receive.Source()); err != nil {
				r.on.Failed(nobody, &UndeliveredError{proto.FromClient, len(m.Payload), len(m.FDs), err})
				m.Close()
				continue
			}
			senders[s.Source] = s
		}
		s.used = number
		r.on.Message(&s.Conn, proto.FromClient, &m)
		s.report(proto.FromClient, &m, r.deliver(&m, s.pass))
	}
}

// nextDatagram waits for a datagram. It returns false if something else has ended the
// wait.
func (r *Relay) nextDatagram(fd int, receive *scm.ExactReceiver, m *scm.Message) (bool, error) {
	if _, err := r.accepting.Wait(fd, unix.POLLIN, -1); err != nil {
		return false, err
	}
	return receive.Receive(m)
}

// newSender makes a socket for who sends from that address.
func (r *Relay) newSender(source string) (*sender, error) {
	fd, err := r.again(func() (int, error) {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return fd, os.NewSyscallError("socket", err)
	})
	if err != nil {
		return nil, err
	}
	s := &sender{Conn: Conn{ID: r.last.Add(1), Source: source, relay: r}, fd: fd, toward: scm.NewSender(fd, &r.sending)}
	if source == "" {
		r.on.Opened(&s.Conn)
		return s, nil
	}
	// An address that the kernel chooses: autobind in unix(7).
	err = os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrUnix{}))
	var receive *scm.ExactReceiver
	if err == nil {
		receive, err = scm.NewExactReceiver(fd)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	r.on.Opened(&s.Conn)
	s.answers.Go(func() { s.answer(receive) })
	return s, nil
}

// pass sends to the target, which may be another process at the same path by now.
func (s *sender) pass(payload []byte, fds []int, from *scm.Credentials) error {
	err := s.toward.Transmit(payload, fds, from)
	if err != scm.ErrGone {
		return err
	}
	if err := unix.Connect(s.fd, &unix.SockaddrUnix{Name: s.relay.target.Path}); err != nil {
		return os.NewSyscallError("connect", err)
	}
	return s.toward.Transmit(payload, fds, from)
}

// answer passes on what the target sends back, until forget.
func (s *sender) answer(receive *scm.ExactReceiver) {
	back := scm.NewSender(s.relay.listener, &s.relay.sending)
	back.To(s.Source)
	var m scm.Message
	for {
		came, err := s.relay.nextDatagram(s.fd, receive, &m)
		switch {
		case came:
			s.relay.on.Message(&s.Conn, proto.FromServer, &m)
			s.report(proto.FromServer, &m, s.relay.deliver(&m, back.Transmit))
		case err == interrupt.ErrStopped, s.forgotten.Load():
			return
		case err != nil:
			s.relay.on.Failed(&s.Conn, err)
		}
	}
}

// report tells if a datagram was not delivered, and closes it.
func (s *sender) report(from proto.Direction, m *scm.Message, err error) {
	if err != nil {
		s.relay.on.Failed(&s.Conn, &UndeliveredError{from, len(m.Payload), len(m.FDs), err})
	}
	m.Close()
}

// idlest returns whose last message is the oldest.
func idlest(senders map[string]*sender) (source string) {
	oldest := -1
	for name, s := range senders {
		if oldest < 0 || s.used < oldest {
			source, oldest = name, s.used
		}
	}
	return source
}

// forget ends what newSender began. An answer that is in hand is still delivered.
func forget(senders map[string]*sender, source string) {
	s := senders[source]
	delete(senders, source)
	s.forgotten.Store(true)
	_ = unix.Shutdown(s.fd, unix.SHUT_RDWR) // wakes answer
	s.relay.done.Go(func() {
		s.answers.Wait()
		_ = unix.Close(s.fd)
		s.relay.on.Closed(&s.Conn)
	})
}
