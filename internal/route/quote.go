package route

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"fdkit/internal/hint"
)

// maxQuoted is how long a quoted key may be, in bytes: with an ending it is a file name,
// which has at most 255, NAME_MAX.
const maxQuoted = 200

// Quote returns the key as FDKIT_KEY has it: it is a file name, and the shell sees nothing
// special in it. It has letters and digits, of any script if they are valid UTF-8, and
// any of -_.,:=@+ but neither - nor . at the beginning. Every other byte is %XX. So
// different keys are different when quoted. The empty key is %, as nothing else is.
func Quote(key string) string {
	if key == "" {
		return "%"
	}
	var quoted strings.Builder
	for i := 0; i < len(key); {
		r, size := utf8.DecodeRuneInString(key[i:])
		switch {
		case r == utf8.RuneError, !readable(r), i == 0 && (r == '-' || r == '.'):
			for _, c := range []byte(key[i : i+size]) {
				fmt.Fprintf(&quoted, "%%%02X", c)
			}
		default:
			quoted.WriteString(key[i : i+size])
		}
		i += size
	}
	return quoted.String()
}

func readable(r rune) bool {
	return strings.ContainsRune("-_.,:=@+", r) || unicode.In(r, unicode.Letter, unicode.Mark, unicode.Number)
}

// unquote undoes Quote, and leaves bytes as they are that Quote would not have left.
func unquote(text string) (string, error) {
	if text == "%" {
		return "", nil
	}
	key, err := url.PathUnescape(text)
	if bad, ok := errors.AsType[url.EscapeError](err); ok {
		return "", hint.Wrap(fmt.Errorf("%q stands there for no byte", string(bad)), "a byte is % and two hexadecimal digits; the sign itself is %25")
	}
	return key, err
}
