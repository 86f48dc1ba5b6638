//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/exec"
	"fdkit/fdsend"
	"fdkit/internal/hint"
	"fdkit/internal/proto"
	"fdkit/listen"
)

func bindCommand() *cli.Command {
	return &cli.Command{
		Name:      "bind",
		Usage:     "bind addresses and become a server with the listening sockets, or send them",
		UsageText: "fdkit bind [OPTION...] ADDRESS... [[--] PROGRAM [ARGUMENT...]]",
		Description: "ADDRESS is as for fdkit listen. PROGRAM has the listening sockets from\n" +
			"descriptor 3 on, with LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES. See fdkit-bind(1).",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "to", Usage: "without PROGRAM: send to `QUEUE` instead of stdout"},
			protoFlag("without PROGRAM: send in dialect `NAME`", true),
			&cli.StringSliceFlag{Name: "name", Usage: "call the sockets of the next ADDRESS `NAME`; one for each ADDRESS, in order"},
		}, []cli.Flag{backlogFlag()}, boundFlags(), socketFileFlags(), bindSocketFlags(), queueFlags(), verbosityFlags()),
		Action: runBind,
	}
}

// bindSocketFlags are those of listen, but that --reuseport says how many sockets
// there are to share each address.
func bindSocketFlags() []cli.Flag {
	flags := socketFlags()
	i := slices.IndexFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), "reuseport") })
	flags[i] = numberFlag("reuseport", "bind `N` sockets to each address, which share its connections (SO_REUSEPORT)", 1, 1<<10, 0)
	return flags
}

// reusePort returns how many sockets --reuseport asks for at each address, 0 if it
// asks for none.
func reusePort(c *cli.Context) int {
	if n, ok := c.Generic("reuseport").(*number); ok {
		return n.value
	}
	return 0
}

// binding is what fdkit bind has to do.
type binding struct {
	log       logger
	addresses []listen.Address
	names     []string // one for each address, or none
	each      int      // sockets at each address
	options   listen.Options
	outputs   outputs
}

func runBind(c *cli.Context) error {
	operands, command, err := splitAddresses(c.Args().Slice())
	if err != nil {
		return err
	}
	b := binding{log: loggerOf(c), names: c.StringSlice("name"), each: max(1, reusePort(c))}
	if b.addresses, err = parseAddresses(operands); err == nil {
		err = checkInherited(b.addresses)
	}
	if err != nil {
		return addressError(err, operands)
	}
	if err := checkNames(b.names, len(b.addresses), "address", "addresses", checkListenName); err != nil {
		return err
	}
	if b.options, err = listenOptions(c, b.addresses); err != nil {
		return err
	}
	if command != nil {
		if err := refuseWithProgram(c); err != nil {
			return err
		}
	}
	if b.outputs, err = outputsOf(c, queueFD(c.String("to"))); err != nil {
		return err
	}
	if command == nil {
		warnCut(c, b.log)
		return b.send(c)
	}
	program, err := exec.Find(command[0], command[1:]...)
	if err != nil {
		return programError(err, command[0])
	}
	warnCut(c, b.log)
	return b.become(program)
}

// refuseWithProgram refuses the options that a program makes pointless.
func refuseWithProgram(c *cli.Context) error {
	for _, option := range []string{"to", "mode", "owner", "proto"} {
		if c.IsSet(option) {
			return usagef("option --%s: a program is given, so nothing is sent", option)
		}
	}
	for _, option := range []string{"address-fd", "ready-fd"} {
		if fd := numberOf(c, option); fd == 0 || fd == 1 {
			return usageHint(fmt.Sprintf("--%s 3 3>FILE", option), "option --%s: descriptor %d is the program's", option, fd)
		}
	}
	return nil
}

// socket is a listening socket, and what it is called.
type socket struct {
	*listen.Listener
	name string // "": nothing
}

// bind binds all addresses, and tells of them who is to be told.
func (b *binding) bind() (sockets []socket, err error) {
	defer func() {
		if err != nil {
			closeSockets(sockets)
		}
	}()
	for i, a := range b.addresses {
		for range b.each {
			ls, err := listen.Listen(a, b.options)
			if err != nil {
				return sockets, socketError(err)
			}
			for _, l := range ls {
				s := socket{l, l.Name()}
				if b.names != nil {
					s.name = b.names[i]
				}
				sockets = append(sockets, s)
				b.log.event(isInfo, "listening", "listening on {local}", slog.String("local", l.String()))
			}
			a.Port = ls[0].Port() // the others share the one that the kernel chose
		}
	}
	var all []*listen.Listener
	for _, s := range sockets {
		all = append(all, s.Listener)
	}
	err = b.outputs.tell(all)
	return sockets, err
}

func closeSockets(sockets []socket) {
	for _, s := range sockets {
		s.Close()
	}
}

// become becomes the program with the sockets from descriptor 3 on. It has no use
// for signals: what it makes is the program's.
func (b *binding) become(program *exec.Program) error {
	sockets, err := b.bind()
	if err != nil {
		return err
	}
	const first = 3 // SD_LISTEN_FDS_START, sd_listen_fds(3)
	var places []exec.Place
	var names []string
	for i, s := range sockets {
		places = append(places, exec.Place{FD: s.FD(), At: first + i})
		if s.FD() < first { // fd:0, say, which remains standard input
			places = append(places, exec.Place{FD: s.FD(), At: s.FD()})
		}
		name := s.name
		if name == "" {
			name = "unknown" // as sd_listen_fds_with_names(3) has it
		}
		names = append(names, name)
	}
	env := append(withoutSockets(os.Environ()),
		"LISTEN_PID="+strconv.Itoa(os.Getpid()),
		"LISTEN_FDS="+strconv.Itoa(len(sockets)),
		"LISTEN_FDNAMES="+strings.Join(names, ":"))
	err = program.BecomeWith(places, env)
	closeSockets(sockets)
	if _, ok := errors.AsType[*exec.PlaceError](err); ok {
		err = hint.Wrap(fmt.Errorf("cannot pass %d sockets: %w", len(sockets), unix.EMFILE),
			"ulimit -n shows and raises the limit (RLIMIT_NOFILE)")
	}
	return err
}

// send sends each socket to the queue, and returns when all have been received.
func (b *binding) send(c *cli.Context) error {
	if err := checkQueue(c, "to"); err != nil {
		return err
	}
	if err := checkProto(c, "to"); err != nil {
		return err
	}
	// From here on the signals are ours: none may leave a socket file behind.
	signals := endings()
	sockets, err := b.bind()
	if err != nil {
		return err
	}
	defer closeSockets(sockets)
	sig := unless(signals, func(stop <-chan struct{}) {
		var q *fdsend.Queue
		if q, err = openOutput(c, b.log, 0, stop); err == nil {
			err = b.sendSockets(q, protoOf(c), sockets, stop)
		}
	})
	if sig != nil && err != nil {
		return endedBy(sig)
	}
	return err
}

// sendSockets sends the sockets and waits until they are received, or until stop is
// closed. It closes the queue. A dialect of nil is fdkit's own way.
func (b *binding) sendSockets(q *fdsend.Queue, d *proto.Dialect, sockets []socket, stop <-chan struct{}) error {
	var messages []outgoing
	var parcels []fdsend.Parcel
	for _, s := range sockets {
		payload := s.AppendPayload(nil)
		if s.name != "" {
			payload = fdsend.AppendVar(payload, "FDNAMES", s.name)
		}
		messages = append(messages, outgoing{payload, []int{s.FD()}})
		if d != nil {
			p := parcelOf(d, payload, s.FD())
			if d.Names && s.name != "" {
				p.Names = []string{s.name}
			}
			parcels = append(parcels, p)
		}
	}
	var lost int
	var err error
	if d != nil {
		err = speakAll(q, d, parcels, stop)
	} else {
		lost, err = deliver(b.log, q, messages, stop)
	}
	switch {
	case errors.Is(err, errNoReceiver):
		return fmt.Errorf("%w: closed %d listening sockets that were sent", err, lost)
	case err != nil:
		return fmt.Errorf("cannot send the listening sockets: %w", err)
	}
	for _, s := range sockets {
		_ = unix.Close(s.Take()) // its file is the receiver's now
	}
	return nil
}
