package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// listed is what go list tells of a package. Imports are those of its own files,
// the others those of its tests.
type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
	Deps                               []string
}

func list(t *testing.T) (packages []listed) {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports,Deps", "./...").Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatalf("go list: %v", err)
	}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		switch err := decoder.Decode(&p); err {
		case nil:
			packages = append(packages, p)
		case io.EOF:
			return packages
		default:
			t.Fatalf("go list: %v", err)
		}
	}
}

func under(path, parent string) bool { return path == parent || strings.HasPrefix(path, parent+"/") }

// heavy tells whether a package is one whose being linked costs each start of fdkit so much:
// what it does before main, and the pages of memory that are touched for it.
func heavy(path string) bool {
	return path == "net/http" || path == "crypto/tls" || path == "crypto/x509" ||
		under(path, "github.com/prometheus") || under(path, "google.golang.org/protobuf")
}

// TestImports holds the rule that imports run one way: main, cmd, {listen, fdsend,
// fdrecv, exec}, internal.
func TestImports(t *testing.T) {
	const module = "fdkit"
	siblings := []string{module + "/listen", module + "/fdsend", module + "/fdrecv", module + "/exec"}
	found := map[string]bool{}
	for _, p := range list(t) {
		found[p.ImportPath] = true
		forbid := func(why string, imports []string, forbidden func(string) bool) {
			t.Helper()
			for _, path := range imports {
				if forbidden(path) {
					t.Errorf("%s imports %s; %s", p.ImportPath, path, why)
				}
			}
		}
		ours := func(path string) bool { return under(path, module) }
		tests := slices.Concat(p.TestImports, p.XTestImports)
		switch {
		case p.ImportPath == module:
			forbid("main imports only cmd", p.Imports, func(path string) bool {
				return path != module+"/cmd" && (ours(path) || strings.Contains(path, "."))
			})
			forbid("it would make the start of each command a tenth longer or more, also of those that do not use it", p.Deps, heavy)
		case p.ImportPath == module+"/cmd":
			forbid("nothing imports main", p.Imports, func(path string) bool { return path == module })
		case slices.Contains(siblings, p.ImportPath):
			// Their tests may: an example sends with one and receives with the other.
			forbid("listen, fdsend, fdrecv and exec do not depend on each other, nor on cmd", p.Deps, func(path string) bool {
				return ours(path) && !under(path, module+"/internal")
			})
		case under(p.ImportPath, module+"/internal"):
			forbid("internal packages depend on internal packages only", slices.Concat(p.Deps, tests), func(path string) bool {
				return ours(path) && !under(path, module+"/internal")
			})
		case under(p.ImportPath, module+"/scripts/examples"):
			forbid("examples are programs as others write them", slices.Concat(p.Imports, tests), func(path string) bool {
				return ours(path) && !slices.Contains(siblings, path)
			})
		case under(p.ImportPath, module+"/scripts"):
			forbid("what else is in scripts runs fdkit, and is not made of it", p.Imports, func(path string) bool {
				return path == module || under(path, module+"/cmd")
			})
		default:
			t.Errorf("there is a package %s; the house has main, cmd, listen, fdsend, fdrecv, exec, internal and scripts", p.ImportPath)
		}
		if p.ImportPath != module+"/cmd" {
			forbid("only cmd imports urfave/cli", slices.Concat(p.Imports, tests), func(path string) bool {
				return under(path, "github.com/urfave/cli")
			})
		}
		if p.ImportPath != module+"/internal/fdtest" {
			forbid("only tests import what is for tests", p.Imports, func(path string) bool {
				return path == "testing" || path == module+"/internal/fdtest" || under(path, "github.com/rogpeppe/go-internal")
			})
		}
	}
	for _, path := range append(siblings, module, module+"/cmd", module+"/internal/scm") {
		if !found[path] {
			t.Errorf("go list does not list %s", path)
		}
	}
}
