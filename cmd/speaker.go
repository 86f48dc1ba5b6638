//go:build linux

package cmd

import (
	"errors"
	"sync"

	"fdkit/fdrecv"
	"fdkit/internal/proto"
)

// messages is what messages are received from.
type messages interface{ Receive(m *fdrecv.Message) error }

// speaker receives in a dialect. Of that there is one receiver for each queue, so
// several goroutines take turns at it.
type speaker struct {
	dialect  *proto.Dialect
	mu       sync.Mutex
	receiver *fdrecv.Receiver
	ended    error // why nothing more can be received
}

// speakFrom begins to speak the dialect on q. It ends when stop is closed.
func speakFrom(q *fdrecv.Queue, d *proto.Dialect, stop <-chan struct{}) (*speaker, error) {
	begun := make(chan struct{})
	defer close(begun)
	go func() {
		select {
		case <-stop:
			q.Stop()
		case <-begun:
		}
	}()
	receiver, err := q.Speak(d.Name, fdrecv.Want{})
	if err != nil {
		return nil, dialectError(d, err)
	}
	return &speaker{dialect: d, receiver: receiver}, nil
}

// Receive stores the next message in m, all of which is the caller's then.
func (s *speaker) Receive(m *fdrecv.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	payload, fds := m.Payload[:0], m.FDs[:0]
	*m = fdrecv.Message{}
	if s.ended != nil {
		return s.ended
	}
	var came fdrecv.Message // its slices are the receiver's
	err := s.receiver.Receive(&came)
	if errors.Is(err, proto.ErrAnswer) {
		err = dialectError(s.dialect, err)
	}
	if err != nil {
		if !s.lost(err) {
			s.ended = err
		}
		return err
	}
	m.Payload, m.FDs = append(payload, came.Payload...), append(fds, came.FDs...)
	return nil
}

// lost tells whether err is that of one message, after which others can be received.
func (s *speaker) lost(err error) bool {
	_, lost := errors.AsType[*fdrecv.LostError](err)
	return lost || s.dialect.Resumes && errors.Is(err, proto.ErrAnswer)
}

// close closes what came and belongs to no message. The queue must be closed or stopped.
func (s *speaker) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.receiver.Close()
}
