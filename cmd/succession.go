//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/fdsend"
	"fdkit/internal/hint"
	"fdkit/internal/queue"
	"fdkit/internal/unixpath"
	"fdkit/listen"
)

// takeoverTime is how long those whose place is taken are waited for. They are told
// anyway, and nothing depends on their end.
const takeoverTime = 5 * time.Second

// takeoverFlag is for the commands of a named queue.
func takeoverFlag(what string) cli.Flag {
	return &cli.BoolFlag{Name: "takeover", Usage: "take the place of " + what, DisableDefaultText: true}
}

// takesOver tells whether the option is given, which for fdkit serve has a value.
func takesOver(c *cli.Context) bool {
	return c.IsSet("takeover") && c.String("takeover") != "false"
}

// succession is how a command takes the place of others at a named queue, and gives up
// its own.
type succession struct {
	log      logger
	takeover bool
	keep     time.Duration
	register *queue.Register // while it is open
	kept     listen.Kept
	seat     *queue.Seat
	stop     chan struct{} // closed by leave
	done     chan struct{} // closed when all is done that relieve has begun; nil: nothing was
}

// successionOf checks the options. The option of that name names the queue.
func successionOf(c *cli.Context, option string, log logger) (*succession, error) {
	s := &succession{log: log, takeover: takesOver(c)}
	for _, name := range []string{"takeover", "keep-listening"} {
		if c.IsSet(name) && !queue.IsNamed(c.String(option)) {
			return nil, usageHint("--"+option+" PATH or @NAME names one", "option --%s: it is for a named queue", name)
		}
	}
	if c.IsSet("keep-listening") {
		if s.keep = durationOf(c, "keep-listening"); s.keep < time.Millisecond {
			return nil, usageHint("without the option they are closed at once", "option --keep-listening: the time is 0")
		}
	}
	return s, nil
}

// registered is a queue that may have a register: *fdsend.Queue and *fdrecv.Queue.
type registered interface {
	Register(takeover bool) (*queue.Register, error)
}

// open opens the register. Without one, who asks for nothing of it can do as well.
func (s *succession) open(q registered) (err error) {
	if s.register, err = q.Register(s.takeover); err != nil {
		return s.without("cannot open the register of the queue", err)
	}
	sockets, err := s.register.Sockets()
	if err != nil {
		s.register.Close()
		return fmt.Errorf("cannot take over: %w", explainFiles(err))
	}
	for _, socket := range sockets {
		s.kept.Add(socket.FD, socket.Dev, socket.Ino)
	}
	return nil
}

func (s *succession) without(what string, err error) error {
	if s.register != nil {
		s.register.Close()
		s.register = nil
	}
	if s.takeover {
		what = "cannot take over"
	}
	err = fmt.Errorf("%s: %w", what, err)
	if s.takeover || s.keep > 0 {
		return err
	}
	if s.log.enabled(isInfo) {
		s.log.say(isInfo, "notice", err.Error(), hint.Of(err), nil)
	}
	return nil
}

// explain gives the cure of an address that is in use.
func (s *succession) explain(err error) error {
	inUse := errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unixpath.ErrLive)
	if s.takeover || s.register == nil || !inUse || !s.register.Live() {
		return err
	}
	return hint.Wrap(err, "--takeover takes the place of the fdkit listen at the queue, with its sockets")
}

// enter enters this process with its listeners, which are its own from now on, and closes
// the register.
func (s *succession) enter(listeners []*listen.Listener) (err error) {
	if s.register != nil {
		defer s.register.Close()
		var sockets []fdsend.Socket
		for _, l := range listeners {
			dev, ino := l.File()
			sockets = append(sockets, fdsend.Socket{FD: l.FD(), Dev: dev, Ino: ino})
		}
		if s.seat, err = s.register.Enter(s.keep, sockets); err != nil {
			if err = s.without("cannot enter the register of the queue", err); err != nil {
				return err
			}
		}
	}
	for _, l := range listeners {
		l.Own()
	}
	return nil
}

// relieve tells those whose place this process takes that it has begun, in the
// background.
func (s *succession) relieve(q registered, metrics *metrics) {
	if s.seat == nil {
		s.kept.Close(func(int) bool { return true })
		return
	}
	stop := make(chan struct{})
	s.stop, s.done = stop, make(chan struct{})
	go func() {
		defer close(s.done)
		for _, p := range s.seat.TakeOver(takeoverTime) {
			switch {
			case p.Left:
				s.log.event(isInfo, "takeover", "took the place of process {pid}", slog.Int("pid", p.PID))
			case !s.isReplaced():
				s.log.say(isNotice, "notice", fmt.Sprintf("process %d, whose place is taken, does not stop", p.PID),
					fmt.Sprintf("it may be stopped itself; kill -CONT %d continues it", p.PID), nil)
			}
		}
		s.closeRest(q)
		metrics.late(s.log, stop)
	}()
}

// closeRest closes the sockets that no address is for.
func (s *succession) closeRest(q registered) {
	taken := func(int) bool { return true } // not known: their files stay
	if r, err := q.Register(false); err == nil {
		defer r.Close()
		taken = r.Has
	}
	for _, address := range s.kept.Close(taken) {
		if s.takeover {
			s.log.event(isInfo, "closed", "closed {local}, which is no address here", slog.String("local", address))
		}
	}
}

func (s *succession) isReplaced() bool {
	select {
	case <-s.seat.Replaced():
		return true
	default:
		return false
	}
}

// leave gives up this process's place. Further calls do nothing.
func (s *succession) leave() {
	s.register.Close()
	s.seat.Leave()
	if s.stop != nil {
		close(s.stop)
		s.stop = nil
		<-s.done
	}
	s.kept.Close(func(int) bool { return true })
}

// replaced says that another process has taken this one's place.
func (s *succession) replaced() {
	s.log.event(isInfo, "replaced", "process {pid} has taken over", slog.Int("pid", s.seat.By()))
}
