//go:build linux

package cmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
	"fdkit/listen"
)

// attemptDelay is how long one address of a name is tried alone, before the next
// one is tried as well: the Connection Attempt Delay of RFC 8305.
const attemptDelay = 250 * time.Millisecond

// dialer connects to an address.
type dialer struct {
	log     logger
	address listen.Address
	local   netip.AddrPort // if valid, the local address; its IP may be none
	timeout time.Duration
}

// dial returns a connected socket, which is blocking and close-on-exec and has no
// option set. It returns context.Canceled when ctx is.
func (d *dialer) dial(ctx context.Context) (fd int, err error) {
	limited, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	if d.address.Kind == listen.Unix {
		fd, err = d.one(limited, "unix", d.address.Path)
	} else {
		fd, err = d.any(limited)
	}
	switch {
	case err == nil:
		return fd, nil
	case ctx.Err() != nil:
		return -1, ctx.Err()
	}
	return -1, fmt.Errorf("cannot connect to %v: %w", d.address, d.explain(err))
}

// any connects to whichever IP address of the host answers first, as RFC 8305
// has it: they are tried in order, each with a short lead over the next.
func (d *dialer) any(ctx context.Context) (int, error) {
	ips, err := d.resolve(ctx)
	if err != nil {
		return -1, err
	}
	type result struct {
		ip  netip.Addr
		fd  int
		err error
	}
	results := make(chan result)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	winner, running := -1, 0
	var failures []error
	next := time.NewTimer(0)
	for rest := ips; running > 0 || winner < 0 && len(rest) > 0; {
		select {
		case <-next.C:
			if winner >= 0 || len(rest) == 0 {
				continue
			}
			ip := rest[0]
			rest = rest[1:]
			running++
			go func() {
				fd, err := d.one(ctx, "tcp", netip.AddrPortFrom(ip, d.address.Port).String())
				results <- result{ip, fd, err}
			}()
			next.Reset(attemptDelay)
		case r := <-results:
			running--
			switch {
			case r.err == nil && winner < 0:
				winner = r.fd
				cancel()
			case r.err == nil: // came second
				_ = unix.Close(r.fd)
			case winner < 0:
				if len(ips) > 1 {
					r.err = fmt.Errorf("%v: %w", r.ip, r.err)
					d.log.info("no connection to %v", r.err)
				}
				failures = append(failures, r.err)
				next.Reset(0)
			}
		}
	}
	if winner >= 0 {
		return winner, nil
	}
	return -1, inOneLine(failures)
}

// inOneLine is errors.Join for a message of one line.
func inOneLine(all []error) error {
	err := all[0]
	for _, e := range all[1:] {
		err = fmt.Errorf("%w; %w", err, e)
	}
	return err
}

// resolve returns the IP addresses of the host in the order in which they are to
// be tried: as the resolver has sorted them (RFC 6724), IPv6 and IPv4 by turns.
func (d *dialer) resolve(ctx context.Context) ([]netip.Addr, error) {
	var ips []netip.Addr
	if ip, err := netip.ParseAddr(d.address.Host); err == nil {
		ips = []netip.Addr{ip}
	} else if d.address.Host == "" { // this machine, as tcpclient's host 0
		ips = []netip.Addr{netip.IPv6Loopback(), netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	} else if ips, err = net.DefaultResolver.LookupNetIP(ctx, "ip", d.address.Host); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if e, ok := errors.AsType[*net.DNSError](err); ok {
			err = errors.New(e.Err) // the name is said already
		}
		return nil, fmt.Errorf("cannot look up %s: %w", d.address.Host, err)
	}
	var versions [2][]netip.Addr // the first address's, and the other
	seen := map[netip.Addr]bool{}
	for _, ip := range ips {
		if ip = ip.Unmap(); d.usable(ip) && !seen[ip] {
			other := 0
			if len(versions[0]) > 0 && versions[0][0].Is4() != ip.Is4() {
				other = 1
			}
			versions[other] = append(versions[other], ip)
			seen[ip] = true
		}
	}
	if len(versions[0]) == 0 {
		return nil, d.unusable()
	}
	var turns []netip.Addr
	for i := range max(len(versions[0]), len(versions[1])) {
		for _, ips := range versions {
			if i < len(ips) {
				turns = append(turns, ips[i])
			}
		}
	}
	return turns, nil
}

// usable tells whether the address has the version that is asked for.
func (d *dialer) usable(ip netip.Addr) bool {
	if local := d.local.Addr(); local.IsValid() && local.Is4() != ip.Is4() {
		return false
	}
	return d.address.Version == 0 || (d.address.Version == 4) == ip.Is4()
}

func (d *dialer) unusable() error {
	version := d.address.Version
	if local := d.local.Addr(); version == 0 && local.Is4() {
		version = 4
	} else if version == 0 {
		version = 6
	}
	return fmt.Errorf("it has no IPv%d address", version)
}

// one connects to one address.
func (d *dialer) one(ctx context.Context, network, address string) (int, error) {
	// What Go's net sets of itself is for programs to choose: no keepalive here.
	// A local port of 0 is chosen by the kernel.
	dialer := net.Dialer{KeepAlive: -1, FallbackDelay: -1}
	if network == "tcp" && (d.local.Addr().IsValid() || d.local.Port() != 0) {
		dialer.LocalAddr = &net.TCPAddr{IP: d.local.Addr().AsSlice(), Port: int(d.local.Port()), Zone: d.local.Addr().Zone()}
	}
	conn, err := dialer.DialContext(ctx, network, address)
	// A Unix socket whose backlog is full refuses non-blocking clients, unix(7).
	for errors.Is(err, unix.EAGAIN) && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
		conn, err = dialer.DialContext(ctx, network, address)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return -1, cause(err)
	}
	defer conn.Close()
	if tcp, ok := conn.(*net.TCPConn); ok {
		if err := tcp.SetNoDelay(false); err != nil {
			return -1, err
		}
	}
	return takeOver(conn.(syscall.Conn))
}

// takeOver returns a blocking descriptor for the connection, which is still to be
// closed.
func takeOver(conn syscall.Conn) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	// At 3 or above: 0, 1 and 2 are the program's, even if they are closed now.
	if controlErr := raw.Control(func(own uintptr) {
		if fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 3); err != nil {
			err = os.NewSyscallError("fcntl", err)
			return
		}
		// The flag belongs to the connection, all copies share it: the last use
		// that Go's net makes of its own is to close it.
		if err = os.NewSyscallError("fcntl", unix.SetNonblock(fd, false)); err != nil {
			_ = unix.Close(fd)
		}
	}); controlErr != nil {
		return -1, controlErr
	}
	return fd, err
}

// cause takes from an error of package net what the user knows already.
func cause(err error) error {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*os.SyscallError](err); ok && e.Syscall == "connect" {
		err = e.Err
	}
	return err
}

// explain gives the cure, where one is known.
func (d *dialer) explain(err error) error {
	isUnix := d.address.Kind == listen.Unix
	isFile := isUnix && !strings.HasPrefix(d.address.Path, "@")
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		// Which of several addresses have refused is told by -v.
		return hint.Wrap(fmt.Errorf("no answer within %v", d.timeout), "--timeout TIME allows more")
	case errors.Is(err, unix.EADDRNOTAVAIL) && d.local.Addr().IsValid():
		return hint.Wrap(fmt.Errorf("cannot bind %s: %w", d.from(), unix.EADDRNOTAVAIL),
			"no interface of this machine has that address; ip addr shows what they have")
	case errors.Is(err, unix.EADDRINUSE) && d.local.Port() != 0:
		return hint.Wrap(fmt.Errorf("cannot bind %s: %w", d.from(), unix.EADDRINUSE), "without a port the kernel chooses a free one")
	case errors.Is(err, unix.ECONNREFUSED) && isFile && !isSocket(d.address.Path):
		return errors.New("it is no socket")
	case isUnix && (errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT)):
		return hint.Wrap(err, "start the program that serves it first")
	case errors.Is(err, unix.EPROTOTYPE):
		return hint.Wrap(err, "it is no stream socket; fdkit's own queues are named with --to and --from")
	}
	return err
}

// from returns the local address as the user has it.
func (d *dialer) from() string {
	switch ip := d.local.Addr(); {
	case !ip.IsValid():
		return fmt.Sprintf(":%d", d.local.Port())
	case d.local.Port() == 0:
		return d.log.client(ip.String())
	}
	return d.log.client(d.local.String())
}

func isSocket(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Type() == fs.ModeSocket
}
