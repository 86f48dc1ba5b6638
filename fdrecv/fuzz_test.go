//go:build linux

package fdrecv

import (
	"net"
	"net/netip"
	"testing"

	"fdkit/internal/scm"
)

// FuzzTold gives whatever a sender may tell: there is an address, and it is the one that was
// told or the socket's own.
func FuzzTold(f *testing.F) {
	f.Add("TCP", "192.0.2.1", "80", "")
	f.Add("TCP", "fe80::1%3", "80", "")
	f.Add("TCP", "::ffff:192.0.2.1", "65536", "")
	f.Add("UNIX", "", "", "/run/s")
	f.Fuzz(func(t *testing.T, proto, ip, port, path string) {
		payload := scm.AppendVar([]byte(scm.Begin), "PROTO", proto)
		payload = scm.AppendVar(payload, "TCPREMOTEIP", ip)
		payload = scm.AppendVar(payload, "TCPREMOTEPORT", port)
		c := &Conn{payload: scm.AppendVar(payload, "UNIXREMOTEPATH", path)}
		for _, own := range []net.Addr{nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, &net.UnixAddr{Net: "unix"}} {
			got := c.told("TCPREMOTEIP", "TCPREMOTEPORT", "UNIXREMOTEPATH", own)
			if got == nil {
				t.Fatalf("no address for %q", payload)
			}
			name := got.String()
			if told, ok := got.(*net.TCPAddr); ok && got != own && own != nil {
				value, _ := c.Var("TCPREMOTEIP") // a NUL ends it
				if a, err := netip.ParseAddr(value); err != nil || told.AddrPort().Addr() != a.Unmap() {
					t.Fatalf("the address is %q for %q", name, payload)
				}
			}
		}
	})
}

// FuzzFromEnviron gives whatever a parent may set: it is stdin, an error, or a descriptor
// that was named.
func FuzzFromEnviron(f *testing.F) {
	f.Add("3", "", "", "")
	f.Add("", "42", "2", "queue:b")
	f.Add("", "42", "1", "")
	f.Fuzz(func(t *testing.T, number, pid, fds, names string) {
		env := map[string]string{"FDKIT_QUEUE_FD": number, "LISTEN_PID": pid, "LISTEN_FDS": fds, "LISTEN_FDNAMES": names}
		spec, passed, err := fromEnviron(func(name string) (string, bool) {
			value, ok := env[name]
			return value, ok && value != ""
		}, 42)
		switch {
		case err != nil && spec != "":
			t.Errorf("fromEnviron(%v) = %q, %v", env, spec, err)
		case err == nil && number != "" && (spec[:3] != "fd:" || passed != nil):
			t.Errorf("fromEnviron(%v) = %q, %v; want the number", env, spec, passed)
		case err == nil && number == "" && (spec == "") != (pid != "42"):
			t.Errorf("fromEnviron(%v) = %q", env, spec)
		}
	})
}
