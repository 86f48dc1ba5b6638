//go:build linux

package cmd

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/urfave/cli/v2"
)

const logFormats = "text json"

// logFormat is the value of option --log.
type logFormat struct{ json bool }

func (f *logFormat) Set(text string) error {
	if text != "text" && text != "json" {
		return fmt.Errorf("%q is neither text nor json", text)
	}
	f.json = text == "json"
	return nil
}

func (f *logFormat) String() string { return "text" }

// logFlag is --log, of all commands that say anything while they run.
func logFlag() cli.Flag {
	return &cli.GenericFlag{Name: "log", Usage: "write the log as `FORMAT`: text, or json with an object for each line", Value: &logFormat{}, DefaultText: "text"}
}

// verbosityFlags are -v, -Q and -q, as the UCSPI tools have them, and how the log is
// written.
func verbosityFlags() []cli.Flag { return verbosityFlagsWith("say everything that happens") }

// verbosityFlagsWith are those of a command of which -v does more.
func verbosityFlagsWith(v string) []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "v", Usage: v, DisableDefaultText: true},
		&cli.BoolFlag{Name: "Q", Usage: "say errors only; the default", DisableDefaultText: true},
		&cli.BoolFlag{Name: "q", Usage: "say nothing", DisableDefaultText: true},
		logFlag(),
	}
}

// clientLogFlags are verbosityFlags and what goes for clients in the log.
func clientLogFlags() []cli.Flag {
	return append(verbosityFlags(),
		&cli.BoolFlag{Name: "log-anonymize", Usage: "shorten the addresses of clients in the log", DisableDefaultText: true})
}

// checkVerbosity refuses contradictions.
func checkVerbosity(c *cli.Context) error {
	var given []string
	for _, name := range []string{"v", "Q", "q"} {
		if c.Bool(name) {
			given = append(given, "-"+name)
		}
	}
	if len(given) > 1 {
		return usagef("options %s: only one of them at a time", strings.Join(given, " and "))
	}
	return nil
}

func verbosity(c *cli.Context) level {
	switch {
	case c.Bool("q"):
		return levelNothing
	case c.Bool("v"):
		return levelAll
	}
	return levelErrors
}

func loggerOf(c *cli.Context) logger {
	l := usageLogger(c.Command)
	l.level, l.anonymize = verbosity(c), c.Bool("log-anonymize")
	return l
}

// usageLogger returns the logger for errors on the command line of c, which may not
// have been understood to its end.
func usageLogger(c *cli.Command) logger {
	l := logger{name: "fdkit " + c.Name, level: levelErrors}
	for _, f := range c.Flags {
		// From the flag itself: package cli forgets all values when one is wrong.
		if g, ok := f.(*cli.GenericFlag); ok && g.Name == "log" {
			l.json = g.Value.(*logFormat).json
		}
	}
	return l
}

// client returns a client's address as it may be in the log.
func (l logger) client(address string) string {
	if l.anonymize {
		return anonymous(address)
	}
	return address
}

// anonymous leaves of an IP address its network, as far as it tells an organization
// and no longer a household: IPv4 a /24, IPv6 a /48, which is what RFC 6177 knows as
// the largest assignment to one site. A Unix client's name is its own choice, so
// nothing is left of it.
func anonymous(address string) string {
	if strings.HasPrefix(address, "unix:") {
		return "unix:"
	}
	ip, err := netip.ParseAddr(address)
	if both, bothErr := netip.ParseAddrPort(address); bothErr == nil {
		ip, err = both.Addr(), nil
	}
	if err != nil {
		return "unknown"
	}
	ip = ip.Unmap().WithZone("")
	bits := 48
	switch {
	case ip.Is4():
		bits = 24
	case sixToFour.Contains(ip):
		bits = 16 + 24 // the IPv4 address follows the first 16 bits
	}
	return netip.PrefixFrom(ip, bits).Masked().Addr().String()
}

// sixToFour are the IPv6 addresses that contain an IPv4 address, RFC 3056.
var sixToFour = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x02}), 16)
