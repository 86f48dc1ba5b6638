//go:build linux

package cmd

import (
	"github.com/urfave/cli/v2"

	"fdkit/listen"
)

// proxyFlags are the options for connections that come through balancers.
func proxyFlags() []cli.Flag {
	timeout := durationFlag("proxy-timeout", "close connections whose PROXY header takes longer than `TIME`").(*cli.GenericFlag)
	timeout.DefaultText = listen.DefaultProxyTimeout.String()
	return []cli.Flag{
		&cli.BoolFlag{Name: "proxy-protocol", Usage: "take the client's address from the PROXY header that a balancer sends", DisableDefaultText: true},
		&cli.StringSliceFlag{Name: "trust", Usage: "let `CLIENT` send PROXY headers: ADDRESS, ADDRESS/BITS or unix"},
		timeout,
	}
}

// proxyOf returns what the options ask for, nil without --proxy-protocol.
func proxyOf(c *cli.Context) (*listen.Proxy, error) {
	trusted := c.StringSlice("trust")
	if !c.Bool("proxy-protocol") {
		for _, option := range []string{"trust", "proxy-timeout"} {
			if c.IsSet(option) {
				return nil, useless(option, "--proxy-protocol")
			}
		}
		return nil, nil
	}
	if len(trusted) == 0 {
		return nil, usageHint("--trust 10.0.0.0/8 lets balancers with such addresses send it, --trust unix those that come by a Unix socket",
			"option --proxy-protocol: nobody is trusted to send a PROXY header")
	}
	p := listen.Proxy{Timeout: listen.DefaultProxyTimeout}
	for _, text := range trusted {
		if err := p.Trust.Add(text); err != nil {
			return nil, usagef("option --trust: %w", err)
		}
	}
	if c.IsSet("proxy-timeout") {
		p.Timeout = durationOf(c, "proxy-timeout")
	}
	if p.Timeout == 0 {
		return nil, usagef("option --proxy-timeout: no header comes in no time")
	}
	return &p, nil
}
