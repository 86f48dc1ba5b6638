//go:build linux

package cmd_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"fdkit/internal/fdtest"
)

// readmeTries says for each sh block of the README, by its first line, how it is
// tried: with a bash script that runs after readmePrelude.
var readmeTries = map[string]string{
	"fdkit listen 127.0.0.1:8080 | fdkit pool -v -n 40 tr a-z A-Z &": `. "$BLOCK" >"$OUTPUT" 2>&1; wait`,
	"make demo": `cd "$ROOT"; make demo; make -n test | grep 'go test'`, // this is part of make test
	"make": `cd "$ROOT"; sudo() { "$@"; }; export DESTDIR=$dir/dest; . "$BLOCK"
		"$dir/dest/usr/local/bin/fdkit" --version; ls "$dir/dest/usr/local/share/man/man1/fdkit.1"*
		make install DESTDIR= PREFIX="$dir/home"; "$dir/home/bin/fdkit" --version`,
	"cat >handler <<'END'": `serve; answer you 'hello, you, from 127.0.0.1'`,
	"fdkit listen :8080 | fdkit pool busybox httpd -i -h www": `needs busybox; mkdir www; echo page >www/index.html
		serve; answer $'GET / HTTP/1.0\r\n\r\n' page`,
	"fdkit listen :9418 | fdkit pool git daemon --inetd --export-all --base-path=repos": `needs git; git init -q --bare repos/x
		serve; opened 9418; git ls-remote git://127.0.0.1/x; git ls-remote git://127.0.0.1/y 2>&1 | grep 'repository not exported'`,
	"fdkit listen :8080 | while fdkit recv-exec ./handler; do :; done": `handler; serve; answer you 'hi, you'; answer me 'hi, me'`,
	"ksh93 -c 'fdkit listen :8080 | fdkit pool ./handler'":             `needs ksh93; handler; serve; answer you 'hi, you'`,
	"fdkit listen :8080 | fdkit pool --resident -n 4 scripts/examples/worker.py": `needs python3; ln -s "$ROOT/scripts" scripts
		serve; answer you you`,
	"go build -o epollworker ./scripts/examples/epollworker": `go() { (cd "$ROOT" && command go build -o "$dir/$3" "$4"); }; export dir; export -f go
		serve; opened 9000; question=$(printf %063d 7); test "$(echo "$question" | nc -N 127.0.0.1 9000)" = "$question"`,
	"fdkit listen :8080 | fdkit pool --resident -n 4 --balance least scripts/examples/worker.py": `needs python3; ln -s "$ROOT/scripts" scripts
		serve; answer you you`,
	"fdkit listen :7000 | fdkit route --by line --consume --to '*=@jobs' &": `sed 's/--idle 10s/--idle 1s/' "$BLOCK" >quick; BLOCK=quick serve
		opened 7000; printf '../fruit\napple\npear\n' | nc -N 127.0.0.1 7000; printf '../fruit\napple' | nc -N 127.0.0.1 7000
		await "grep -q '2 apple' %2E.%2Ffruit.out"; grep -q '1 pear' %2E.%2Ffruit.out`,
	"fdkit listen :8443 | fdkit route --by sni --to www.example.org=@www --to '*.example.org=@others' &": `needs openssl stunnel4
		for name in www others; do
			printf '#!/bin/sh\nread -r name; echo "%s: hi, $name"\n' $name >$name; chmod +x $name
			openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out $name.pem -subj /CN=$name.example.org 2>/dev/null
			printf 'cert = %s.pem\nkey = %s.key\nexec = ./%s\n' $name $name $name >$name.conf; mv key.pem $name.key
		done
		serve; opened 8443
		of() { echo you | openssl s_client -quiet -servername "$1" -connect 127.0.0.1:8443 2>/dev/null; }
		test "$(of www.example.org)" = 'www: hi, you'; test "$(of a.example.org)" = 'others: hi, you'`,
	"cat >rules <<'END'": `handler; serve; answer you 'hi, you'
		ip addr add 192.0.2.66/32 dev lo; test -z "$(dial -from 192.0.2.66 127.0.0.1:8080 </dev/null 2>/dev/null)"`,
	"openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -subj /CN=localhost": `needs openssl stunnel4
		handler; serve; opened 8443; test "$(echo you | openssl s_client -quiet -connect 127.0.0.1:8443 2>/dev/null)" = 'hi, you'`,
	"fdkit recv --explain --from unix-listen:back &":                         `needs socat; . "$BLOCK" >"$OUTPUT" 2>&1`,
	"cat >service.py <<'END'":                                                `needs python3; . "$BLOCK" >"$OUTPUT" 2>/dev/null; wait`,
	"fdkit send --payload 'all files' $(yes r:/etc/hostname | head -n 30) |": `. "$BLOCK" >"$OUTPUT" 2>&1`,
	"fdkit listen --to ./web.q :8080             # in one terminal": `handler; test "$(wc -l <"$BLOCK")" = 2
		while read -r line; do echo "$line" >line; BLOCK=line serve; await 'test -S web.q'; done <"$BLOCK"; answer you 'hi, you'`,
}

const readmePrelude = `set -eu
ip link set lo up
dir=$PWD
needs() { for program; do command -v "$program" >/dev/null || { echo "$program is not installed" >&2; exit 99; }; done; }
needs nc setsid
# handler makes the program that several blocks run.
handler() { printf '#!/bin/sh\nread -r name; echo "hi, $name"\n' >handler; chmod +x handler; }
# serve runs the block until the test ends.
serve() { setsid bash "$BLOCK" & services="${services-} $!"; }
trap 'for s in ${services-}; do kill -- -$s; done; wait' EXIT
# opened waits until somebody listens at the port. A person who types is as slow.
opened() { await "grep -q '$(printf ':%04X [0-9A-F]*:0000 0A' "$1")' /proc/net/tcp /proc/net/tcp6"; }
nc() { opened "$3"; command nc -w 20 "$@"; }
# answer sends the text to port 8080 and wants the answer to end with that line.
answer() {
	local last
	last=$(echo "$1" | nc -N 127.0.0.1 8080 | tail -n 1)
	test "$last" = "$2" || { echo "answer to $1: $last; want $2" >&2; exit 1; }
}
`

// fenced is a block of the README: language, and what is in it.
var fenced = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")

func readme(t *testing.T) string {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestReadme runs every sh block of the README, each in a network namespace of
// its own, where all ports are free. A text block is the output of the sh block
// before it.
func TestReadme(t *testing.T) {
	tries := maps.Clone(readmeTries)
	blocks := fenced.FindAllStringSubmatch(readme(t), -1)
	bin := buildFdkit(t)
	for i, block := range blocks {
		if block[1] != "sh" {
			continue
		}
		first, _, _ := strings.Cut(block[2], "\n")
		try, known := tries[first]
		if !known {
			t.Errorf("readmeTries has no entry for the block that begins %q", first)
			continue
		}
		delete(tries, first)
		t.Run(first, func(t *testing.T) {
			got := runReadme(t, bin, try, block[2])
			if i+1 < len(blocks) && blocks[i+1][1] == "text" {
				if want := blocks[i+1][2]; timeless(got) != timeless(want) {
					t.Errorf("output is\n%s\nwant, but for numbers,\n%s", got, want)
				}
			}
		})
	}
	for _, first := range slices.Sorted(maps.Keys(tries)) {
		t.Errorf("the README has no block that begins %q", first)
	}
}

// timeless sorts the lines, as those of several processes come in any order, and
// removes what differs each time: process ids, ports and times.
func timeless(text string) string {
	text = regexp.MustCompile(`\d+(\.\d+)?(µs|ms)`).ReplaceAllString(text, "TIME")
	text = regexp.MustCompile(`pid \d+ for 127.0.0.1:\d+`).ReplaceAllString(text, "PID, CLIENT")
	// Who has sent is known unless it was sent before somebody asked.
	text = regexp.MustCompile(`(?m)^    - sender not known: .*\n`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`(from|sender not known, connected with) pid \d+ (\(\w+?)[\d.]*\) uid \d+ gid \d+`).ReplaceAllString(text, "from $2)")
	text = regexp.MustCompile(`pipe:\[\d+\]|, \d+ that came|\d+ came`).ReplaceAllString(text, "N")
	return strings.Join(slices.Sorted(strings.Lines(text)), "")
}

// runReadme tries a block and returns what it has written to the file $OUTPUT.
func runReadme(t *testing.T, bin, try, block string) string {
	fdtest.NeedsProgram(t, "bash", "ip", "make")
	dir, files := t.TempDir(), t.TempDir()
	blockFile, output := filepath.Join(files, "block"), filepath.Join(files, "output")
	if err := os.WriteFile(blockFile, []byte(block), 0o666); err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	goEnv, err := exec.Command("go", "env", "GOCACHE", "GOPATH").Output()
	if err != nil {
		t.Fatalf("go env: %v", err)
	}
	caches := strings.Split(string(goEnv), "\n")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "bash", "-c", readmePrelude+try)
	command.Dir = dir
	command.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+dir,
		"GOCACHE="+caches[0], "GOPATH="+caches[1], "MAKEFLAGS=", "MAKELEVEL=", "GORACE=atexit_sleep_ms=10", // instead of a second
		"ROOT="+root, "BLOCK="+blockFile, "OUTPUT="+output, marker+"="+dir)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Cloneflags: syscall.CLONE_NEWNET}
	if uid := os.Getuid(); uid != 0 {
		command.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		command.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		command.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGTERM) }
	command.WaitDelay = 10 * time.Second
	said, err := command.CombinedOutput()
	left := leftovers(dir)
	var exit *exec.ExitError
	switch {
	case errors.Is(err, syscall.EPERM):
		fdtest.Lacks(t, "no network namespace can be made: %v", err)
	case errors.As(err, &exit) && exit.ExitCode() == 99:
		fdtest.Lacks(t, "%s", said)
	case err != nil:
		t.Fatalf("%s\n%v: %s", block, err, said)
	}
	if left != nil {
		t.Errorf("still running three seconds after the end:\n%s", strings.Join(left, "\n"))
	}
	got, _ := os.ReadFile(output)
	return string(got)
}

// buildFdkit builds the program and returns its directory.
func buildFdkit(t *testing.T) string {
	dir := t.TempDir()
	if err := build(filepath.Join(dir, "fdkit"), raceEnabled); err != nil {
		t.Fatalf("go build fdkit: %v", err)
	}
	return dir
}

// TestReadmeGo builds the README's Go program and runs it on a connection.
func TestReadmeGo(t *testing.T) {
	for _, block := range fenced.FindAllStringSubmatch(readme(t), -1) {
		if block[1] != "go" {
			continue
		}
		bin := buildFdkit(t)
		source := filepath.Join(t.TempDir(), "greet.go")
		if err := os.WriteFile(source, []byte(block[2]), 0o666); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("go", "build", "-o", bin, source).CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
		runReadme(t, bin, fmt.Sprintf("ln -s %s/greet; serve; test \"$(nc -N 127.0.0.1 8080 </dev/null)\" = 'hello from Go'", bin), "fdkit listen :8080 | ./greet\n")
	}
}

// TestReadmeLinks checks that everything that the README leads to is there, and
// that it leads to every manual page.
func TestReadmeLinks(t *testing.T) {
	linked := map[string]bool{}
	for _, m := range regexp.MustCompile(`\]\(([^)#]+)\)`).FindAllStringSubmatch(readme(t), -1) {
		linked[m[1]] = true
		if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
			t.Errorf("the README links to %s: %v", m[1], err)
		}
	}
	pages, err := filepath.Glob("../man/*.[1-8]")
	if err != nil || pages == nil {
		t.Fatalf("no manual pages: %v", err)
	}
	for _, page := range pages {
		if name := "man/" + filepath.Base(page); !linked[name] {
			t.Errorf("the README does not link to %s", name)
		}
	}
}
