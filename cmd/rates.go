//go:build linux

package cmd

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"fdkit/listen"
)

// maxBurst bounds the bursts of --rate-burst and --source-burst.
const maxBurst = 1_000_000

// rateFlags are the options that limit how many connections are let through.
func rateFlags() []cli.Flag {
	burst := func(name, usage string) cli.Flag {
		f := numberFlag(name, usage, 1, maxBurst, 0).(*cli.GenericFlag)
		f.DefaultText = "as many as in a second"
		return f
	}
	return []cli.Flag{
		&cli.StringFlag{Name: "rate", Usage: "let connections through at `RATE`, such as 100/s, 30/m or 0.5/s"},
		burst("rate-burst", "of --rate, let `N` through at once"),
		&cli.StringFlag{Name: "source-rate", Usage: "let connections of each source through at `RATE`"},
		burst("source-burst", "of --source-rate, let `N` through at once"),
		&cli.GenericFlag{
			Name: "source-prefix", Usage: "count addresses that have `V4[,V6]` leading bits in common as one source",
			Value: &prefixes{}, DefaultText: (&prefixes{listen.DefaultPrefix4, listen.DefaultPrefix6}).String(),
		},
		&cli.GenericFlag{Name: "over-rate", Usage: "do `ACTION` with connections that come too early: wait or refuse", Value: &overRate{}, DefaultText: "wait"},
	}
}

// prefixes is the value of an option that takes the lengths of an IPv4 and an IPv6
// prefix.
type prefixes struct{ v4, v6 int }

func (p *prefixes) Set(text string) error {
	v4, v6, both := strings.Cut(text, ",")
	n := number{min: 1, max: 32}
	err := n.Set(v4)
	p.v4 = n.value
	if err == nil && both {
		n.max = 128
		err = n.Set(v6)
		p.v6 = n.value
	}
	if err != nil {
		return fmt.Errorf("%q is no V4[,V6], two numbers of bits such as 24,56", text)
	}
	return nil
}

func (p *prefixes) String() string { return strconv.Itoa(p.v4) + "," + strconv.Itoa(p.v6) }

// overRate is the value of an option that takes wait or refuse.
type overRate struct{ refuse bool }

func (o *overRate) Set(text string) error {
	if text != "wait" && text != "refuse" {
		return fmt.Errorf("%q is neither wait nor refuse", text)
	}
	o.refuse = text == "refuse"
	return nil
}

func (o *overRate) String() string { return "" }

// ratesOf returns the limits that the options ask for.
func ratesOf(c *cli.Context) (r listen.Rates, err error) {
	if r.Overall, err = rateOf(c, "rate", "rate-burst"); err != nil {
		return r, err
	}
	if r.Source, err = rateOf(c, "source-rate", "source-burst"); err != nil {
		return r, err
	}
	switch {
	case c.IsSet("source-prefix") && !c.IsSet("source-rate"):
		return r, useless("source-prefix", "--source-rate RATE")
	case c.IsSet("over-rate") && !c.IsSet("rate") && !c.IsSet("source-rate"):
		return r, useless("over-rate", "--rate RATE or --source-rate RATE")
	}
	p := c.Generic("source-prefix").(*prefixes)
	r.Prefix4, r.Prefix6 = p.v4, p.v6
	r.Refuse = c.Generic("over-rate").(*overRate).refuse
	return r, nil
}

func rateOf(c *cli.Context, name, burst string) (r listen.Rate, err error) {
	switch {
	case c.IsSet(name):
		if r, err = listen.ParseRate(c.String(name)); err != nil {
			return r, usagef("option --%s: %w", name, err)
		}
	case c.IsSet(burst):
		return r, useless(burst, "--"+name+" RATE")
	}
	r.Burst = numberOf(c, burst)
	return r, nil
}

// useless is the error of an option that does nothing by itself.
func useless(option, other string) error {
	return usageHint("it goes with "+other, "option --%s: it does nothing by itself", option)
}
