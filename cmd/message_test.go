//go:build linux

package cmd

import (
	"strings"
	"testing"
)

func FuzzMessageValue(f *testing.F) {
	for _, text := range []string{"busy", `busy\r\n`, `\\`, `\`, `a\tb`, "\x00", "ü", `\x21\xff`, `\u263a`, "a\nb", `"`, `\"`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var m message
		if m.Set(text) != nil {
			return
		}
		first := m.text
		if again := strings.ReplaceAll(first, `\`, `\\`); m.Set(again) != nil || m.text != first {
			t.Errorf("the message %q is %q; that as %q is %q", text, first, again, m.text)
		}
	})
}
