//go:build linux

package cmd

import "strings"

// splitAddresses parts the operands ADDRESS... PROGRAM [ARGUMENT...]: those at the
// beginning that have a colon, and no slash before it, are addresses, up to a -- if
// there is one.
func splitAddresses(operands []string) (addresses, program []string, err error) {
	for i, operand := range operands {
		if operand == "--" {
			return operands[:i], operands[i+1:], nil
		}
		before, _, colon := strings.Cut(operand, ":")
		if !colon || strings.Contains(before, "/") {
			return operands[:i], operands[i:], nil
		}
	}
	return operands, nil, nil
}
