//go:build linux

package cmd

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// message is the value of an option that takes a text to be sent to a client.
type message struct{ text string }

// maxMessage is the most that is sure to fit into an empty send buffer.
const maxMessage = 2048

func (m *message) Set(text string) error {
	out, err := unescape(text)
	if err != nil {
		return err
	}
	if len(out) < 1 || len(out) > maxMessage {
		return fmt.Errorf("a message has 1 to %d bytes, this one %d", maxMessage, len(out))
	}
	m.text = string(out)
	return nil
}

func (m *message) String() string { return "" }

// unescape returns the bytes that text stands for, with backslashes as Go has them.
func unescape(text string) (out []byte, err error) {
	for rest := text; rest != ""; {
		if rest[0] != '\\' {
			out, rest = append(out, rest[0]), rest[1:]
			continue
		}
		char, multibyte, tail, err := strconv.UnquoteChar(rest, 0)
		if err != nil {
			return nil, fmt.Errorf(`"%s" has a backslash in it that is no \r, \n, \t, \\ or \xHH`, text)
		}
		if multibyte {
			out = utf8.AppendRune(out, char)
		} else {
			out = append(out, byte(char))
		}
		rest = tail
	}
	return out, nil
}
