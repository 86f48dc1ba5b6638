//go:build linux

package cmd_test

import (
	"cmp"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"fdkit/cmd"
)

// TestManServe holds that the lists of options in man/fdkit-serve.1 are those that the
// pages of listen and pool, and the command's own words, make. UPDATE=1 writes them
// anew.
func TestManServe(t *testing.T) {
	pages := manPages(t)
	listenForms, poolForms := optionForms(pages["fdkit-listen.1"]), optionForms(pages["fdkit-pool.1"])
	synopsis := ".Nm fdkit serve\n.Op Fl q | Fl Q | Fl v\n"
	var ofListen, ofPool strings.Builder
	for _, f := range serveFlags() {
		name := f.Names()[0]
		form, list := listenForms[name], &ofListen
		if form == "" {
			form, list = poolForms[name], &ofPool
		}
		if name == "takeover" {
			form = "-takeover Ar queue" // there is no --to or --from that names it
		}
		if form == "" {
			t.Fatalf("option %s is in neither page", name)
		}
		if !strings.Contains("qQv", name) {
			synopsis += ".Op Fl " + form + "\n"
		}
		documented := f.(cli.DocGenerationFlag)
		list.WriteString(".It Fl " + form + "\n" + sentence(documented.GetUsage(), documented.GetDefaultText()))
	}
	page := pages["fdkit-serve.1"]
	want := replaceBetween(t, page, ".Sh SYNOPSIS\n", ".Ar address ...\n", synopsis)
	want = replaceBetween(t, want, ".Ss Options of fdkit-listen(1)\n.Bl -tag -width Ds\n", ".El\n", ofListen.String())
	want = replaceBetween(t, want, ".Ss Options of fdkit-pool(1)\n.Bl -tag -width Ds\n", ".El\n", ofPool.String())
	switch {
	case want == page:
	case os.Getenv("UPDATE") != "":
		if err := os.WriteFile("../man/fdkit-serve.1", []byte(want), 0o666); err != nil {
			t.Fatal(err)
		}
	default:
		t.Error("the options in man/fdkit-serve.1 are not those of the command; UPDATE=1 go test ./cmd -run TestManServe writes them")
	}
}

// serveFlags returns the flags of fdkit serve, in the order of the alphabet.
func serveFlags() []cli.Flag {
	commands := cmd.New("x").Commands
	serve := commands[slices.IndexFunc(commands, func(c *cli.Command) bool { return c.Name == "serve" })]
	return slices.SortedFunc(slices.Values(serve.Flags), func(a, b cli.Flag) int {
		one, other := a.Names()[0], b.Names()[0]
		return cmp.Or(cmp.Compare(strings.ToLower(one), strings.ToLower(other)), cmp.Compare(one, other))
	})
}

// optionForms returns how a page writes each option: -backlog Ar n.
func optionForms(page string) map[string]string {
	forms := map[string]string{}
	for line := range strings.SplitSeq(page, "\n") {
		if form, ok := strings.CutPrefix(line, ".It Fl "); ok {
			forms[strings.TrimPrefix(strings.Fields(form)[0], "-")] = form
		}
	}
	return forms
}

var valueName = regexp.MustCompile("`([^`]*)`")

// sentence makes the words about an option those of a manual page.
func sentence(usage, byDefault string) string {
	usage = valueName.ReplaceAllStringFunc(usage, func(name string) string { return strings.ToLower(strings.Trim(name, "`")) })
	text := wrapped(strings.ToUpper(usage[:1]) + usage[1:] + ".")
	if byDefault != "" && byDefault != "none" && byDefault != "false" && !strings.Contains(usage, "the default") {
		text += wrapped("The default is " + byDefault + ".")
	}
	return text
}

// wrapped breaks a sentence into lines.
func wrapped(sentence string) string {
	words := strings.Fields(strings.ReplaceAll(sentence, `\`, `\e`))
	var text strings.Builder
	width := 0
	for _, word := range words {
		switch {
		case width == 0:
		case width+len(word) > 78:
			text.WriteByte('\n')
			width = 0
		default:
			text.WriteByte(' ')
		}
		text.WriteString(word)
		width += len(word) + 1
	}
	return text.String() + "\n"
}

func replaceBetween(t *testing.T, text, begin, end, with string) string {
	t.Helper()
	i := strings.Index(text, begin)
	if i < 0 {
		t.Fatalf("man/fdkit-serve.1 has no %q", begin)
	}
	i += len(begin)
	j := strings.Index(text[i:], end)
	if j < 0 {
		t.Fatalf("man/fdkit-serve.1 has no %q after %q", end, begin)
	}
	return text[:i] + with + text[i+j:]
}
