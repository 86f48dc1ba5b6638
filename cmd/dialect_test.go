//go:build linux

package cmd_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"fdkit/cmd"
	fdkitexec "fdkit/exec"
)

// TestDialectsAreDescribed holds that fdkit-environ(7) has every dialect and
// variable, and that the option and its pages name all dialects that they take.
func TestDialectsAreDescribed(t *testing.T) {
	pages := manPages(t)
	section := manSection(pages["fdkit-environ.7"], "DIALECTS")
	source, err := os.ReadFile("../exec/dialect.go")
	if err != nil {
		t.Fatal(err)
	}
	variables := regexp.MustCompile(`\{"([A-Z0-9_]+)", `).FindAllStringSubmatch(string(source), -1)
	if len(variables) < 20 {
		t.Fatalf("exec/dialect.go has %d variables that this test can see; want all", len(variables))
	}
	for _, m := range variables {
		if !regexp.MustCompile(`Ev ` + m[1] + `\b`).MatchString(section) {
			t.Errorf("man/fdkit-environ.7, DIALECTS, does not have %s", m[1])
		}
	}
	usages := map[string]string{}
	for _, c := range cmd.New("x").Commands {
		for _, f := range c.Flags {
			if f.Names()[0] == "dialect" {
				usages[c.Name] = f.(cli.DocGenerationFlag).GetUsage()
			}
		}
	}
	for _, d := range fdkitexec.Dialects() {
		if !strings.Contains(section, "\n.Ss "+d.Name+"\n") {
			t.Errorf("man/fdkit-environ.7, DIALECTS, does not have %s", d.Name)
		}
		for _, command := range []string{"pool", "recv-exec", "connect"} {
			word := regexp.MustCompile(`\b` + d.Name + `\b`)
			_, item, _ := strings.Cut(pages["fdkit-"+command+".1"], "\n.It Fl -dialect")
			item, _, _ = strings.Cut(item, "\n.It ")
			takes := command != "connect" || d.Clients
			if word.MatchString(item) != takes {
				t.Errorf("man/fdkit-%s.1: option --dialect has %s: %t; want %t", command, d.Name, !takes, takes)
			}
			if word.MatchString(usages[command]) != takes {
				t.Errorf("fdkit %s --help: option --dialect has %s: %t; want %t", command, d.Name, !takes, takes)
			}
		}
	}
}
