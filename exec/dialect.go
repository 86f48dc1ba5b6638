//go:build linux

package exec

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fdkit/internal/scm"
)

// Dialect is how another super-server tells a program of its connection: the
// variables that it sets beside those of UCSPI, or instead of them.
type Dialect struct {
	Name string
	// Clients says that the other program has a client as well, whose programs
	// find the same variables.
	Clients bool
	vars    []dialectVar
}

// dialectVar is a variable of a dialect. It is unset where its value is "", and
// always if make is nil.
type dialectVar struct {
	name string
	make func(c *ends) string
}

// ends is what a dialect is made from: the connection and its UCSPI variables, ""
// where they are not set.
type ends struct {
	fd                                           int
	proto                                        string
	localIP, localPort, localHost, localPath     string
	remoteIP, remotePort, remoteHost, remotePath string
}

// Dialects returns all dialects, sorted by name.
func Dialects() []*Dialect { return slices.Clone(dialects) }

var dialects = []*Dialect{
	// RFC 3875, 4.1.8, 4.1.9 and 4.1.15; SERVER_ADDR and REMOTE_PORT are Apache's.
	{Name: "cgi", vars: []dialectVar{
		{"REMOTE_ADDR", func(c *ends) string { return c.remoteIP }},
		{"REMOTE_HOST", func(c *ends) string {
			if c.remoteHost != "" {
				return c.remoteHost
			}
			return c.remoteIP
		}},
		{"REMOTE_PORT", func(c *ends) string { return c.remotePort }},
		{"SERVER_ADDR", func(c *ends) string { return c.localIP }},
		{"SERVER_PORT", func(c *ends) string { return c.localPort }},
	}},
	// setup_environment in ncat_core.c of Ncat 7.93. A Unix socket's ports are
	// there and empty; here they are unset, which a shell shows as the same.
	{Name: "ncat", Clients: true, vars: []dialectVar{
		{"NCAT_REMOTE_ADDR", func(c *ends) string { return c.ncatHost(c.remoteIP) }},
		{"NCAT_REMOTE_PORT", func(c *ends) string { return c.remotePort }},
		{"NCAT_LOCAL_ADDR", func(c *ends) string { return c.ncatHost(c.localIP) }},
		{"NCAT_LOCAL_PORT", func(c *ends) string { return c.localPort }},
		{"NCAT_PROTO", func(c *ends) string {
			if c.proto == "UNIX" || c.isTCP() {
				return "TCP"
			}
			return ""
		}},
	}},
	// socat(1), version 1.7.4.4. Its client sets none of these. What it tells of
	// the socat process itself would be untrue of any that is here.
	{Name: "socat", vars: []dialectVar{
		{"SOCAT_PEERADDR", func(c *ends) string { return c.socatAddress(c.remoteIP, c.remotePath) }},
		{"SOCAT_PEERPORT", func(c *ends) string { return c.remotePort }},
		{"SOCAT_SOCKADDR", func(c *ends) string { return c.socatAddress(c.localIP, c.localPath) }},
		{"SOCAT_SOCKPORT", func(c *ends) string { return c.localPort }},
		{"SOCAT_PID", nil},
		{"SOCAT_PPID", nil},
		{"SOCAT_VERSION", nil},
	}},
	// systemd.socket(5) of version 258, under Accept=, and service_spawn_internal in
	// its src/core/service.c.
	{Name: "systemd", vars: []dialectVar{
		{"REMOTE_ADDR", func(c *ends) string {
			if c.proto == "UNIX" && (strings.HasPrefix(c.remotePath, "/") || strings.HasPrefix(c.remotePath, "@")) {
				return c.remotePath
			}
			return c.withInterface(c.remoteIP)
		}},
		{"REMOTE_PORT", func(c *ends) string { return c.remotePort }},
		{"SO_COOKIE", (*ends).cookie},
	}},
	// ucspi-tcp6's tcpserver.c and tcpclient.c: an IPv4 client at an IPv6 socket has
	// none of these, and PROTO=TCP.
	{Name: "tcp6", Clients: true, vars: []dialectVar{
		{"PROTO", func(c *ends) string {
			if c.isIPv6() {
				return "TCP6"
			}
			return c.proto
		}},
		{"TCP6LOCALIP", func(c *ends) string { return c.ifIPv6(withoutZone(c.localIP)) }},
		{"TCP6LOCALPORT", func(c *ends) string { return c.ifIPv6(c.localPort) }},
		{"TCP6LOCALHOST", func(c *ends) string { return c.ifIPv6(c.localHost) }},
		{"TCP6REMOTEIP", func(c *ends) string { return c.ifIPv6(withoutZone(c.remoteIP)) }},
		{"TCP6REMOTEPORT", func(c *ends) string { return c.ifIPv6(c.remotePort) }},
		{"TCP6REMOTEHOST", func(c *ends) string { return c.ifIPv6(c.remoteHost) }},
		{"TCP6INTERFACE", func(c *ends) string {
			_, name, _ := strings.Cut(c.withInterface(c.localIP), "%")
			return c.ifIPv6(name)
		}},
	}},
	// UCSPI's own variables are always there.
	{Name: "ucspi", Clients: true},
	// xinetd 2.3.15.3, which sets nothing else of itself.
	{Name: "xinetd", vars: []dialectVar{
		{"REMOTE_HOST", func(c *ends) string { return c.withInterface(c.remoteIP) }},
	}},
}

// FindDialect returns the dialect of that name.
func FindDialect(name string) (*Dialect, error) {
	var names []string
	for _, d := range dialects {
		if d.Name == name {
			return d, nil
		}
		names = append(names, d.Name)
	}
	return nil, fmt.Errorf("%q is no dialect; they are %s", name, strings.Join(names, ", "))
}

// Has tells whether the dialect has a variable of that name. A program whose
// environment has the dialect gets it from its connection or not at all.
func (d *Dialect) Has(name string) bool {
	return slices.ContainsFunc(d.vars, func(v dialectVar) bool { return v.name == name })
}

// AddDialects makes programs find the variables of the dialects as well. They are
// made from the UCSPI variables of the connection; what comes with a message or
// is in the base under one of their names does not count. If two dialects have
// the same variable, that of the later one is set. It is not to be called
// when e is in use already.
func (e *Environ) AddDialects(added ...*Dialect) {
	for _, d := range added {
		e.dialect = append(slices.DeleteFunc(e.dialect, func(v dialectVar) bool { return d.Has(v.name) }), d.vars...)
	}
	e.base = slices.DeleteFunc(e.base, func(entry *byte) bool {
		name, _, _ := strings.Cut(unix.BytePtrToString(entry), "=")
		return e.inDialect(name)
	})
}

// inDialect tells whether a dialect says what the variable is.
func (e *Environ) inDialect(name string) bool {
	return slices.ContainsFunc(e.dialect, func(v dialectVar) bool { return v.name == name })
}

// appendDialects appends the variables of the dialects for the connection fd, which
// the payload describes.
func (e *Environ) appendDialects(entries []*byte, fd int, payload []byte) []*byte {
	c := ends{fd: fd}
	for name, value := range scm.Vars(payload) {
		if known := c.field(name); known != nil && *known == "" { // the first counts
			*known = value
		}
	}
	for _, v := range e.dialect {
		if v.make == nil {
			continue
		}
		if value := v.make(&c); value != "" {
			// A variable of a payload ends before its first NUL, so this cannot fail.
			entry, _ := unix.BytePtrFromString(v.name + "=" + value)
			entries = append(entries, entry)
		}
	}
	return entries
}

func (c *ends) field(name string) *string {
	switch name {
	case "PROTO":
		return &c.proto
	case "TCPLOCALIP":
		return &c.localIP
	case "TCPLOCALPORT":
		return &c.localPort
	case "TCPLOCALHOST":
		return &c.localHost
	case "TCPREMOTEIP":
		return &c.remoteIP
	case "TCPREMOTEPORT":
		return &c.remotePort
	case "TCPREMOTEHOST":
		return &c.remoteHost
	case "UNIXLOCALPATH":
		return &c.localPath
	case "UNIXREMOTEPATH":
		return &c.remotePath
	}
	return nil
}

func (c *ends) isTCP() bool { return c.localIP != "" || c.remoteIP != "" }

// isIPv6 tells whether the client, or if it is not known our side, has an IPv6
// address that is no mapped IPv4 one.
func (c *ends) isIPv6() bool {
	text := c.remoteIP
	if text == "" {
		text = c.localIP
	}
	ip, err := netip.ParseAddr(text)
	return err == nil && ip.Unmap().Is6()
}

func (c *ends) ifIPv6(value string) string {
	if !c.isIPv6() {
		return ""
	}
	return value
}

// ncatHost is an address as getnameinfo(3) writes it; ncat calls both ends of a Unix
// socket localhost.
func (c *ends) ncatHost(ip string) string {
	if c.proto == "UNIX" {
		return "localhost"
	}
	return c.withInterface(ip)
}

// socatAddress writes an IPv6 address with all its digits, in brackets and without a
// zone, and an abstract name with \0 for its leading NUL.
func (c *ends) socatAddress(ip, path string) string {
	if c.proto == "UNIX" {
		if name, abstract := strings.CutPrefix(path, "@"); abstract {
			return `\0` + name
		}
		return path
	}
	if addr, err := netip.ParseAddr(ip); err == nil && addr.Is6() {
		return "[" + addr.WithZone("").StringExpanded() + "]"
	}
	return ip
}

func withoutZone(ip string) string {
	ip, _, _ = strings.Cut(ip, "%")
	return ip
}

// withInterface returns an address with the name of its interface instead of the
// number, if it has one. The connection is asked, as it may belong to another
// network namespace than this process.
func (c *ends) withInterface(ip string) string {
	addr, zone, _ := strings.Cut(ip, "%")
	index, err := strconv.ParseUint(zone, 10, 31)
	if err != nil {
		return ip
	}
	// Whoever sent the connection may have sent a device, to which the number of this
	// ioctl means something else.
	if _, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
		return ip
	}
	request, err := unix.NewIfreq("")
	if err != nil {
		return ip
	}
	request.SetUint32(uint32(index))
	if err := unix.IoctlIfreq(c.fd, unix.SIOCGIFNAME, request); err != nil { // netdevice(7)
		return ip
	}
	return addr + "%" + request.Name()
}

// cookie returns the number that the kernel has given the socket.
func (c *ends) cookie() string {
	cookie, err := unix.GetsockoptUint64(c.fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return ""
	}
	return strconv.FormatUint(cookie, 10)
}
