//go:build linux

package cmd

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"

	"fdkit/exec"
	"fdkit/internal/hint"
)

// endOfAddresses is the operand between addresses and a program that looks like
// one.
const endOfAddresses = "--"

// splitAddresses divides operands into addresses and the program that follows
// them, with its arguments. An operand that has a colon before any slash is an
// address; the first other one is the program. An operand -- ends the addresses,
// whatever follows it. There is at least one address, and program is nil if there
// is none. The errors are those of wrong usage.
func splitAddresses(operands []string) (addresses, program []string, err error) {
	i := 0
	for i < len(operands) && looksLikeAddress(operands[i]) {
		i++
	}
	addresses, program = operands[:i], operands[i:]
	ended := len(program) > 0 && program[0] == endOfAddresses
	if ended {
		program = program[1:]
	}
	switch {
	case len(program) > 0 && !ended && len(program[0]) > 1 && program[0][0] == '-':
		return nil, nil, refuseOptions(program[:1], "address")
	case len(addresses) == 0 && !ended && len(program) > 0 && looksMistyped(program[0]):
		right, ok := hostAndPort(program)
		if !ok {
			right = rightAddress(program[0])
		}
		return nil, nil, usageHint(right, "%s is no address, and one is missing", program[0])
	case len(addresses) == 0:
		return nil, nil, usageHint(":8080 is port 8080 of all addresses", "an address is missing")
	case len(program) == 0 && ended:
		return nil, nil, usagef("a program is missing after --")
	case len(program) == 0:
		return addresses, nil, nil
	case program[0] == "":
		return nil, nil, usagef("the program's name is empty")
	}
	return addresses, program, nil
}

func looksLikeAddress(operand string) bool {
	i := strings.IndexAny(operand, ":/")
	return i >= 0 && operand[i] == ':' && operand[0] != '-'
}

// looksMistyped tells whether who wrote this, which is no address, may have meant
// one: a port, a host or a socket file.
func looksMistyped(operand string) bool {
	if operand == "" || operand == "localhost" || operand[0] == '@' || strings.Trim(operand, "0123456789") == "" {
		return true
	}
	if _, err := netip.ParseAddr(operand); err == nil {
		return true
	}
	info, err := os.Stat(operand)
	return strings.HasSuffix(operand, ".sock") || err == nil && info.Mode().Type() == os.ModeSocket
}

// hostAndPort returns how the first two operands are written if they are HOST PORT, as
// tcpserver(1) and tcpsvd(8) have it, where the host 0 is all addresses.
func hostAndPort(operands []string) (right string, ok bool) {
	if len(operands) < 2 {
		return "", false
	}
	host, port := operands[0], operands[1]
	switch {
	case host == "", looksLikeAddress(host), strings.ContainsRune(host, '/'), strings.HasSuffix(host, ".sock"):
		return "", false
	case port == "", strings.Trim(port, "0123456789") != "":
		return "", false
	case host == "0":
		return "host and port are one address; port " + port + " of all addresses is written :" + port, true
	}
	return "host and port are one address, written " + net.JoinHostPort(host, port), true
}

// rightAddress returns how an operand that looksMistyped is written.
func rightAddress(operand string) string {
	switch {
	case operand == "":
		return "an address is :PORT, HOST:PORT or unix:PATH"
	case strings.Trim(operand, "0123456789") == "":
		return "port " + operand + " of all addresses is written :" + operand
	case strings.ContainsRune(operand, '/'), operand[0] == '@', strings.HasSuffix(operand, ".sock"):
		return "a Unix socket is written unix:" + operand
	}
	return "an address has a port: " + operand + ":PORT"
}

// addressError adds to the error of one of the operands that were taken for
// addresses that it may have been meant as the program.
func addressError(err error, addresses []string) error {
	if err != nil && len(addresses) > 1 && hint.Of(err) == "" {
		return hint.Wrap(err, "a program with a colon in its name stands after --")
	}
	return err
}

// programError adds to the error of what was taken for the program that it may have
// been meant as an address.
func programError(err error, name string) error {
	missing, ok := errors.AsType[*exec.NotRunnableError](err)
	if ok && looksMistyped(name) && hint.Of(err) == "" {
		missing.Err = hint.Wrap(missing.Err, "it was taken for the program; "+rightAddress(name))
	}
	return err
}
