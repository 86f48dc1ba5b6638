//go:build linux

package fdrecv

import (
	"io"
	"iter"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"fdkit/internal/scm"
)

// Conn is a connection that a Listener has accepted. Its methods may be called by several
// goroutines. A server that hides it, such as that of crypto/tls, has a method NetConn
// which returns it.
type Conn struct {
	net.Conn // a *net.TCPConn or *net.UnixConn

	payload       []byte
	local, remote net.Addr
	end           func() // when it is closed; nil: nothing
	once          sync.Once

	mu    sync.Mutex
	files []*os.File
}

// LocalAddr returns the address that the client has connected to, behind a balancer that of
// the balancer: fdkit-environ(7).
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the address of the client, behind a balancer that of its client. What
// the message does not tell, the socket does.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Vars yields the variables that have come with the connection, as names and values:
// fdkit-environ(7). If none have come they are what the socket itself tells. Whoever
// can send to the queue says what they are.
func (c *Conn) Vars() iter.Seq2[string, string] { return scm.Vars(c.payload) }

// Var returns the value of the first variable of that name, and whether there is one.
func (c *Conn) Var(name string) (value string, ok bool) { return scm.Var(c.payload, name) }

// TakeFiles returns the descriptors that have come beside the connection, each with the
// name that FDNAMES gives it, or "unknown", and gives them away: the caller closes them. A
// second call returns none, and so does one after Close, which closes what nobody has
// taken.
func (c *Conn) TakeFiles() (files []*os.File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	files, c.files = c.files, nil
	return files
}

// NetConn returns the *net.TCPConn or *net.UnixConn, for what only that can do. It says
// what the socket says of its addresses. It is not to be closed.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// Close closes the connection and what TakeFiles has not given away.
func (c *Conn) Close() error {
	if c.end != nil { // somebody else still holds it
		_ = c.CloseWrite()
	}
	err := c.Conn.Close()
	c.once.Do(func() {
		for _, file := range c.TakeFiles() {
			_ = file.Close()
		}
		if c.end != nil {
			c.end()
		}
	})
	return err
}

// CloseWrite shuts down the writing side.
func (c *Conn) CloseWrite() error { return c.Conn.(interface{ CloseWrite() error }).CloseWrite() }

// CloseRead shuts down the reading side.
func (c *Conn) CloseRead() error { return c.Conn.(interface{ CloseRead() error }).CloseRead() }

// SyscallConn gives the descriptor for a moment, as that of *net.TCPConn does.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.Conn.(syscall.Conn).SyscallConn() }

// ReadFrom writes what r has, with sendfile(2) or splice(2) where it can.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	if _, ok := c.Conn.(io.ReaderFrom); !ok { // *net.UnixConn: io.Copy would come back here
		return io.Copy(struct{ io.Writer }{c.Conn}, r)
	}
	return io.Copy(c.Conn, r)
}

// WriteTo reads to the end and writes it to w, with splice(2) where it can.
func (c *Conn) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, c.Conn) }

// attach gives the connection the further descriptors, which m has left.
func (c *Conn) attach(m *Message) {
	text, _ := c.Var("FDNAMES")
	names := strings.Split(text, ":")
	for i, fd := range m.FDs {
		name := "unknown" // as sd_listen_fds_with_names(3) has it
		if len(names) == len(m.FDs)+1 && names[i+1] != "" {
			name = names[i+1]
		}
		c.files = append(c.files, os.NewFile(uintptr(fd), name))
	}
}

// address finds out who the two ends are.
func (c *Conn) address() {
	c.local = c.told("TCPLOCALIP", "TCPLOCALPORT", "UNIXLOCALPATH", c.Conn.LocalAddr())
	c.remote = c.told("TCPREMOTEIP", "TCPREMOTEPORT", "UNIXREMOTEPATH", c.Conn.RemoteAddr())
}

// told returns the address that the variables tell or, if it is the same or they tell none,
// the socket's own, in which a link-local address has the name of its interface.
func (c *Conn) told(ip, port, path string, own net.Addr) net.Addr {
	if proto, _ := c.Var("PROTO"); proto == "UNIX" {
		name, ok := c.Var(path)
		if !ok {
			name = "@" // as package net has unnamed ones
		}
		if u, ok := own.(*net.UnixAddr); ok && (u.Name == name || u.Name == "" && name == "@") {
			return own
		}
		return &net.UnixAddr{Name: name, Net: "unix"}
	}
	host, _ := c.Var(ip)
	number, _ := c.Var(port)
	addr, err := netip.ParseAddr(host)
	n, portErr := strconv.ParseUint(number, 10, 16)
	t, isTCP := own.(*net.TCPAddr)
	switch {
	case err == nil && portErr == nil:
		addr = addr.Unmap()
		if isTCP && t.AddrPort().Addr().Unmap().WithZone("") == addr.WithZone("") && t.Port == int(n) {
			return own
		}
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, uint16(n)))
	case own == nil:
		return &net.TCPAddr{} // it is gone already, and nobody knows who it was
	}
	return own
}
