// Package hint attaches to an error the cure that is known for it.
package hint

import "errors"

type hinted struct {
	error
	text string
}

func (h hinted) Unwrap() error { return h.error }

// Wrap returns err with the hint text. Its message is that of err.
func Wrap(err error, text string) error { return hinted{err, text} }

// Of returns the outermost hint that err carries, or "".
func Of(err error) string {
	if h, ok := errors.AsType[hinted](err); ok {
		return h.text
	}
	return ""
}
