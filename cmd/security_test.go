//go:build linux

package cmd_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSecurity holds that each test that SECURITY.md names exists, that the statements name
// one, and that the page can be read in one go.
func TestSecurity(t *testing.T) {
	text, err := os.ReadFile("../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n > 120 {
		t.Errorf("SECURITY.md has %d lines, want at most 120", n)
	}
	exist := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err = filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case strings.HasSuffix(path, ".txtar"):
			exist[filepath.Base(path)] = true
		case strings.HasSuffix(path, "_test.go"):
			source, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, found := range declared.FindAllSubmatch(source, -1) {
				exist[string(found[1])] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	chaos, err := os.ReadFile("../scripts/chaos/main.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile(`(?m)^\t\t\{"([a-z-]+)", `).FindAllSubmatch(chaos, -1) {
		exist["chaos "+string(found[1])] = true
	}

	// What these say is a caution, and nothing to test.
	untested := regexp.MustCompile(`^There is no encryption|^A queue in an abstract name|^\*\*Who holds the other end`)
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+|[a-z-]+\\.txtar|chaos [a-z-]+)`")
	statements := strings.Split(string(text), "\n- ")[1:]
	if len(statements) < 30 {
		t.Errorf("SECURITY.md has %d statements, want what was there: 30 and more", len(statements))
	}
	for _, statement := range statements {
		statement, _, _ = strings.Cut(statement, "\n\n")
		tests := named.FindAllStringSubmatch(statement, -1)
		if len(tests) == 0 && !untested.MatchString(statement) {
			t.Errorf("SECURITY.md names no test for %q", statement)
		}
		for _, test := range tests {
			if !exist[test[1]] {
				t.Errorf("SECURITY.md names %s, which does not exist, for %q", test[1], statement)
			}
		}
	}
}
