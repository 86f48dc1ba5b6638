//go:build linux

package cmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/exec"
	"fdkit/fdsend"
	"fdkit/internal/fdinfo"
	"fdkit/listen"
)

// connectTimeout is the default of --timeout: what tcpclient gives an address, 2
// and 58 seconds.
const connectTimeout = 60 * time.Second

func connectCommand() *cli.Command {
	return &cli.Command{
		Name:      "connect",
		Usage:     "connect to an address and send the descriptor, or become a program with it",
		UsageText: "fdkit connect [OPTION...] ADDRESS [PROGRAM [ARGUMENT...]]",
		Description: "ADDRESS is HOST:PORT, :PORT, [IPV6]:PORT, tcp:HOST:PORT, tcp4:HOST:PORT,\n" +
			"tcp6:HOST:PORT, unix:PATH or unix:@NAME. PROGRAM reads from descriptor 6 and\n" +
			"writes to 7. See fdkit-connect(1).",
		Flags: append(append([]cli.Flag{
			&cli.StringFlag{Name: "to", Usage: "without PROGRAM: send to `QUEUE` instead of stdout"},
			&cli.GenericFlag{Name: "fd", Usage: "with PROGRAM: place the connection at `N[,N...]` instead of 6,7", Value: &places{list: []int{6, 7}}, DefaultText: "6,7"},
			dialectFlag("ncat, tcp6 or ucspi"),
			protoFlag("without PROGRAM: send in dialect `NAME`", true),
			&cli.GenericFlag{Name: "timeout", Usage: "give up after `TIME`", Value: &duration{connectTimeout}, DefaultText: "1m"},
			&cli.GenericFlag{Name: "bind", Usage: "connect from this `LOCAL` IP address, :PORT or both", Value: &local{}},
		}, queueFlags()...), clientLogFlags()...),
		Action: runConnect,
	}
}

// local is the value of an option that takes a local IP address, a port or both.
type local struct{ netip.AddrPort }

func (l *local) Set(text string) error {
	if ip, err := netip.ParseAddr(text); err == nil {
		l.AddrPort = netip.AddrPortFrom(ip.Unmap(), 0)
		return nil
	}
	a, err := listen.ParseAddress(text)
	ip, ipErr := netip.ParseAddr(a.Host)
	if err != nil || a.Kind != listen.TCP || ipErr != nil && a.Host != "" {
		return fmt.Errorf("%q is no IP address, :PORT, IP:PORT or [IPV6]:PORT", text)
	}
	l.AddrPort = netip.AddrPortFrom(ip.Unmap(), a.Port)
	return nil
}

func (l *local) String() string { return "" }

func runConnect(c *cli.Context) error {
	d, err := dialerOf(c)
	if err != nil {
		return err
	}
	if c.NArg() > 1 {
		return connectAndBecome(c, d)
	}
	return connectAndSend(c, d)
}

// dialerOf checks all that can be checked before anything is done.
func dialerOf(c *cli.Context) (*dialer, error) {
	if c.NArg() == 0 {
		return nil, usageHint("fdkit connect example.org:80 connects to port 80 of that host", "an address is missing")
	}
	operands := c.Args().Slice()
	if err := refuseOptions(operands[:min(2, len(operands))], "address"); err != nil {
		return nil, err
	}
	a, err := listen.ParseAddress(operands[0])
	switch {
	case err != nil:
		return nil, usagef("address %s: %w", operands[0], err)
	case a.Kind == listen.Inherited, a.Kind == listen.Systemd:
		return nil, usagef("address %s: a descriptor is nothing to connect to", operands[0])
	case a.Kind == listen.TCP && a.Port == 0:
		return nil, usagef("address %s: nobody listens on port 0", operands[0])
	}
	d := &dialer{log: loggerOf(c), address: a, local: c.Generic("bind").(*local).AddrPort, timeout: durationOf(c, "timeout")}
	switch {
	case d.timeout == 0:
		return nil, usagef("option --timeout: no connection is made in no time")
	case c.IsSet("bind") && a.Kind == listen.Unix:
		return nil, usagef("option --bind: it is for TCP, and the address is %v", a)
	}
	if len(operands) == 1 && c.IsSet("fd") {
		return nil, usageHint("fdkit connect --fd 0,1 ADDRESS PROGRAM", "option --fd: it is for a program, and none is given")
	}
	if len(operands) == 1 && c.IsSet("dialect") {
		return nil, usageHint("fdkit connect --dialect ncat ADDRESS PROGRAM", "option --dialect: it is for a program, and none is given")
	}
	if err := checkClientDialects(dialectsOf(c)); err != nil {
		return nil, err
	}
	for _, option := range []string{"to", "mode", "owner", "proto"} {
		if len(operands) > 1 && c.IsSet(option) {
			return nil, usagef("option --%s: a program is given, so nothing is sent", option)
		}
	}
	return d, nil
}

// connectAndBecome becomes the program with the connection.
func connectAndBecome(c *cli.Context, d *dialer) error {
	operands := c.Args().Slice()[1:]
	if operands[0] == "" {
		return usagef("the program's name is empty")
	}
	program, err := exec.Find(operands[0], operands[1:]...)
	if err != nil {
		return err
	}
	environ, err := exec.NewEnviron(withoutSockets(os.Environ()))
	if err != nil {
		return err
	}
	environ.AddDialects(dialectsOf(c)...)
	fd, _, err := d.unless(endings(), nil)
	if err != nil {
		return err
	}
	err = program.Become(fd, c.Generic("fd").(*places).list, environ.For(fd, nil))
	if place, ok := errors.AsType[*exec.PlaceError](err); ok {
		err = usagef("option --fd: %w", place)
	}
	return err
}

// connectAndSend sends the connection to a queue, and returns when it has been
// received.
func connectAndSend(c *cli.Context, d *dialer) error {
	if err := checkQueue(c, "to"); err != nil {
		return err
	}
	if err := checkProto(c, "to"); err != nil {
		return err
	}
	// From here on the signals are ours: none may leave a socket file behind.
	signals := endings()
	var q *fdsend.Queue
	var err error
	sig := unless(signals, func(stop <-chan struct{}) {
		q, err = openOutput(c, d.log, 0, stop)
	})
	if q != nil {
		defer q.Close()
	}
	switch {
	case sig != nil:
		return endedBy(sig)
	case err != nil:
		return err
	}
	fd, conn, err := d.unless(signals, q.Gone())
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	message := outgoing{conn.AppendVars([]byte(fdsend.Begin)), []int{fd}}
	sig = unless(signals, func(stop <-chan struct{}) {
		if dialect := protoOf(c); dialect != nil {
			err = speakAll(q, dialect, []fdsend.Parcel{parcelOf(dialect, message.payload, fd)}, stop)
			return
		}
		_, err = deliver(d.log, q, []outgoing{message}, stop)
	})
	switch {
	case sig != nil && err != nil:
		d.log.error(fmt.Errorf("nobody has received the connection to %v yet", conn.Remote))
		return endedBy(sig)
	case errors.Is(err, errNoReceiver), errors.Is(err, fdsend.ErrGone):
		return fmt.Errorf("%w: the connection to %v is closed", err, conn.Remote)
	case err != nil:
		return fmt.Errorf("cannot send the connection to %v: %w", conn.Remote, err)
	}
	return nil
}

// unless dials, and returns the connection with what is known of it, unless a
// signal comes first or the channel gone is closed.
func (d *dialer) unless(signals <-chan os.Signal, gone <-chan struct{}) (fd int, conn fdinfo.Conn, err error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	sig := unless(signals, func(stop <-chan struct{}) {
		go func() {
			select {
			case <-stop:
			case <-gone:
				cancel(errNoReceiver)
			case <-ctx.Done():
			}
			cancel(nil)
		}()
		fd, err = d.dial(ctx)
	})
	switch {
	case sig != nil:
		if err == nil {
			_ = unix.Close(fd)
		}
		return -1, conn, endedBy(sig)
	case errors.Is(context.Cause(ctx), errNoReceiver) && err != nil:
		return -1, conn, errNoReceiver
	case err != nil:
		return -1, conn, err
	}
	conn, _ = fdinfo.Connection(fd)
	if d.log.enabled(isInfo) {
		d.log.event(isInfo, "connected", "connected to {server} from {client}",
			slog.String("server", conn.Remote.String()), slog.String("client", d.log.client(conn.Local.String())))
	}
	return fd, conn, nil
}
