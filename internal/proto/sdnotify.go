//go:build linux

package proto

import (
	"bytes"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"fdkit/internal/scm"
)

// sdNotify is how services tell their manager what they do, sd_notify(3): datagrams to
// the socket that NOTIFY_SOCKET names, of lines VARIABLE=VALUE. With FDSTORE=1 the
// manager holds the descriptors that come along, under FDNAME or the name "stored".
// It closes the one that comes with BARRIER=1 when it has done all that came before,
// and nothing else with that message: sd_notify_barrier() waits for it.
// manager_process_barrier_fd() in src/core/manager.c of systemd, and
// service_notify_message() in src/core/service.c.
var sdNotify = &Dialect{
	Name: "sd-notify", About: "sd_notify(3), a service and its manager",
	Send: sdNotifySend, Receive: sdNotifyReceive,
	Decoder: func() Decoder { return sdNotifyDecoder{} },
	Payload: true, Names: true,
}

const sdNotifyBarrier = "BARRIER=1"

func sdNotifySend(c *Conn) (func(Parcel) error, error) {
	return func(p Parcel) error {
		if p.Payload != nil {
			if err := c.Send(p.Payload, p.FDs...); err != nil {
				return err
			}
			if hasLine(p.Payload, sdNotifyBarrier) {
				return nil
			}
			return c.sdNotifyBarrier()
		}
		if p.Names == nil {
			if err := c.Send([]byte("FDSTORE=1\n"), p.FDs...); err != nil {
				return err
			}
			return c.sdNotifyBarrier()
		}
		for i, name := range p.Names {
			if slices.Contains(p.Names[:i], name) {
				continue // it has gone with the first one of that name
			}
			var fds []int
			for j, fd := range p.FDs {
				if p.Names[j] == name {
					fds = append(fds, fd)
				}
			}
			if err := c.Send([]byte("FDSTORE=1\nFDNAME="+name+"\n"), fds...); err != nil {
				return err
			}
		}
		return c.sdNotifyBarrier()
	}, nil
}

// sdNotifyBarrier waits until what was sent is received. A manager looks up who has
// sent it, and does not know who has ended meanwhile.
func (c *Conn) sdNotifyBarrier() error {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("pipe2", err)
	}
	defer unix.Close(pipe[0])
	err := c.Send([]byte(sdNotifyBarrier), pipe[1])
	_ = unix.Close(pipe[1])
	if err == nil {
		_, err = c.calls.Wait(pipe[0], 0, -1) // for POLLHUP: nobody has the other end any more
	}
	return err
}

func sdNotifyReceive(c *Conn, _ Want) (func(*scm.Message) error, error) {
	return func(m *scm.Message) error {
		for {
			if err := c.Receive(m); err != nil {
				return err
			}
			if hasLine(m.Payload, sdNotifyBarrier) {
				m.Close()
				continue
			}
			if hasLine(m.Payload, "FDSTORE=1") {
				m.Names = slices.Repeat([]string{sdNotifyName(m.Payload)}, len(m.FDs))
			}
			return nil
		}
	}, nil
}

// sdNotifyName returns the name under which systemd holds what comes with the message.
func sdNotifyName(payload []byte) string {
	for line := range bytes.SplitSeq(payload, []byte("\n")) {
		if name, found := strings.CutPrefix(string(line), "FDNAME="); found && isFDName(name) {
			return name
		}
	}
	return "stored"
}

// isFDName tells whether LISTEN_FDNAMES can have the name, fdname_is_valid() in
// src/basic/fd-util.c of systemd.
func isFDName(name string) bool {
	return name != "" && len(name) <= 255 &&
		strings.IndexFunc(name, func(r rune) bool { return r < ' ' || r >= 127 || r == ':' }) < 0
}

func hasLine(payload []byte, want string) bool {
	for line := range bytes.SplitSeq(payload, []byte("\n")) {
		if string(line) == want {
			return true
		}
	}
	return false
}
