//go:build linux

package cmd_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"fdkit/cmd"
	fdkitexec "fdkit/exec"
	"fdkit/fdrecv"
	"fdkit/fdsend"
	"fdkit/internal/fdtest"
	"fdkit/listen"
)

// manPages returns the sources of all pages, by name: fdkit-listen.1.
func manPages(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../man/*.[0-9]")
	if err != nil || len(files) == 0 {
		t.Fatalf("no pages in ../man (%v)", err)
	}
	pages := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		pages[filepath.Base(file)] = string(text)
	}
	return pages
}

// manSection returns the lines of one section of a page.
func manSection(page, title string) string {
	_, section, _ := strings.Cut(page, "\n.Sh "+title+"\n")
	section, _, _ = strings.Cut(section, "\n.Sh ")
	return section + "\n"
}

// TestManOptions holds that a command's page has the command's options, in the
// synopsis and in the list, and no others.
func TestManOptions(t *testing.T) {
	pages := manPages(t)
	app := cmd.New("x")
	commands := map[string]bool{}
	for _, c := range app.Commands {
		commands[c.Name] = true
		name := "fdkit-" + c.Name + ".1"
		page, ok := pages[name]
		if !ok {
			t.Errorf("command %s has no page man/%s", c.Name, name)
			continue
		}
		options := map[string]bool{} // to whether it takes a value
		for _, f := range c.Flags {
			for _, option := range f.Names() {
				options[option] = f.(cli.DocGenerationFlag).TakesValue()
			}
		}
		compareOptions(t, name, page, options)
		if !strings.Contains(pages["fdkit.1"], "\n.It Cm "+c.Name+"\n") {
			t.Errorf("man/fdkit.1 does not list command %s as .It Cm %[1]s", c.Name)
		}
		if !strings.Contains(pages["fdkit.1"], "\n.Xr fdkit-"+c.Name+" 1") {
			t.Errorf("man/fdkit.1 does not refer to fdkit-%s(1)", c.Name)
		}
	}
	compareOptions(t, "fdkit.1", pages["fdkit.1"], map[string]bool{"help": false, "h": false, "version": false})
	for name := range pages {
		if command, ok := strings.CutPrefix(strings.TrimSuffix(name, ".1"), "fdkit-"); ok && strings.HasSuffix(name, ".1") && !commands[command] {
			t.Errorf("man/%s describes command %s, which does not exist", name, command)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^\.It Cm (\S+)$`).FindAllStringSubmatch(manSection(pages["fdkit.1"], "DESCRIPTION"), -1) {
		if !commands[m[1]] {
			t.Errorf("man/fdkit.1 lists command %s, which does not exist", m[1])
		}
	}
}

func compareOptions(t *testing.T, name, page string, want map[string]bool) {
	t.Helper()
	listed, shown := map[string]bool{}, map[string]bool{}
	for line := range strings.SplitSeq(page, "\n") {
		if strings.HasPrefix(line, ".It Fl ") {
			for _, option := range flagsIn(line) {
				listed[option] = strings.Contains(line, " Ar ")
			}
		}
	}
	for line := range strings.SplitSeq(manSection(page, "SYNOPSIS"), "\n") {
		for _, option := range flagsIn(line) {
			shown[option] = strings.Contains(line, " Ar ")
		}
	}
	for _, place := range []struct {
		name string
		got  map[string]bool
	}{{"options list", listed}, {"SYNOPSIS", shown}} {
		for option, value := range want {
			if got, ok := place.got[option]; !ok {
				t.Errorf("man/%s: option %s is not in the %s", name, option, place.name)
			} else if got != value {
				t.Errorf("man/%s: option %s in the %s has a value: %t; want %t", name, option, place.name, got, value)
			}
		}
		for option := range place.got {
			if _, ok := want[option]; !ok {
				t.Errorf("man/%s: the %s has option %s, which does not exist", name, place.name, option)
			}
		}
	}
}

// flagsIn returns the options that a line of mdoc(7) marks with Fl, without dashes.
func flagsIn(line string) (options []string) {
	words := strings.Fields(line)
	for i, word := range words[:max(len(words)-1, 0)] {
		if word == "Fl" || word == ".Fl" {
			options = append(options, strings.TrimPrefix(words[i+1], "-"))
		}
	}
	return options
}

// TestManLint holds the pages to mandoc's taste, and to referring to pages that
// exist.
func TestManLint(t *testing.T) {
	pages := manPages(t)
	for name, page := range pages {
		title := strings.Replace(strings.ToUpper(name), ".", " ", 1)
		if !strings.Contains(page, "\n.Dt "+title+"\n") {
			t.Errorf("man/%s has no line .Dt %s", name, title)
		}
		for _, m := range regexp.MustCompile(`(?m)^\.Xr (fdkit\S*) (\d)`).FindAllStringSubmatch(page, -1) {
			if _, ok := pages[m[1]+"."+m[2]]; !ok {
				t.Errorf("man/%s refers to %s(%s), which does not exist", name, m[1], m[2])
			}
		}
	}
	fdtest.NeedsProgram(t, "mandoc")
	lint := exec.Command("mandoc", append([]string{"-T", "lint", "-W", "warning"}, slices.Sorted(maps.Keys(pages))...)...)
	lint.Dir = "../man"
	if out, err := lint.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: %v\n%s", lint, err, out)
	}
}

// TestManWire holds fdkit-protocol(7) and fdkit-environ(7) to what is sent.
func TestManWire(t *testing.T) {
	pages := manPages(t)
	payload := realPayload(t)

	var drawn []byte
	for _, m := range regexp.MustCompile(`(?m)^bytes  ((?:[0-9a-f]{2} ?)+)$`).FindAllStringSubmatch(manSection(pages["fdkit-protocol.7"], "A MESSAGE"), 2) {
		row, err := hex.DecodeString(strings.ReplaceAll(m[1], " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		drawn = append(drawn, row...)
	}
	if len(drawn) == 0 || !bytes.HasPrefix(payload, drawn) {
		t.Errorf("man/fdkit-protocol.7 draws a payload that begins %q; one begins %q", drawn, payload)
	}
	for _, limit := range []int{fdsend.MaxFDs, fdsend.MaxPayload} {
		if !strings.Contains(manSection(pages["fdkit-protocol.7"], "A MESSAGE"), " "+strconv.Itoa(limit)+" ") {
			t.Errorf("man/fdkit-protocol.7 does not tell the limit %d", limit)
		}
	}
	message := fdrecv.Message{Payload: payload}
	for name := range message.Vars() {
		if !strings.Contains(pages["fdkit-environ.7"], "\n.It Ev "+name+"\n") {
			t.Errorf("man/fdkit-environ.7 does not list %s", name)
		}
	}
	_, refused, _ := strings.Cut(manSection(pages["fdkit-environ.7"], "WHAT COMES WITH A CONNECTION"), "\nThese are\n")
	refused, _, _ = strings.Cut(refused, "\nThese are inherited")
	names := regexp.MustCompile(`(?m)^\.Ev (\S+)`).FindAllStringSubmatch(refused, -1)
	for _, m := range names {
		if _, err := fdkitexec.NewEnviron(nil, m[1]); err == nil {
			t.Errorf("man/fdkit-environ.7 says that %s is never let through; NewEnviron(nil, %[1]q) succeeds", m[1])
		}
	}
	source, err := os.ReadFile("../exec/environ.go")
	if err != nil {
		t.Fatal(err)
	}
	_, dangerous, found := strings.Cut(string(source), "\nfunc dangerous(")
	if !found {
		t.Fatal("exec/environ.go has no func dangerous")
	}
	for _, m := range regexp.MustCompile(`"([A-Z0-9_]+)"`).FindAllStringSubmatch(dangerous, -1) {
		if !slices.ContainsFunc(names, func(name []string) bool { return name[1] == m[1] }) {
			t.Errorf("man/fdkit-environ.7 does not say that %s is never let through", m[1])
		}
	}
}

// realPayload returns what fdkit listen sends with a connection.
func realPayload(t *testing.T) []byte {
	t.Helper()
	address, err := listen.ParseAddress("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listeners, err := listen.Listen(address, listen.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer listeners[0].Close()
	go func() { _, _ = exchange(listeners[0].String(), nil, "") }()
	var c listen.Conn
	if err := listeners[0].Accept(&c); err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(c.FD)
	return c.AppendPayload(nil)
}

// manExample says how examples of a page are run.
type manExample struct {
	page string
	// blocks are the first lines of the examples that script runs, with run 1, run
	// 2 and so on.
	blocks []string
	// files are examples that are files, first lines by name.
	files map[string]string
	// script is a shell script that checks what the examples do; it has ask, get,
	// run and what tools_test.go has. want is what it prints.
	script, want string
	needs        []string // programs
	root         bool     // can be run by root only
}

// helpers are the programs that examples mention and do not show.
var helpers = map[string]string{
	"handler":     "#!/bin/sh\nread -r line\necho \"handler: $line\"\n",
	"old-handler": "#!/bin/sh\nread -r line\necho \"old: $line\"\n",
	"new-handler": "#!/bin/sh\nread -r line\necho \"new: $line\"\n",
	"one-client":  "#!/bin/sh\nread -r line\necho \"one-client: $line\"\n",
}

var manExamples = []manExample{
	{
		page: "fdkit.1", blocks: []string{"fdkit listen :8080 | fdkit pool cat"},
		script: "run 1; ask 127.0.0.1:8080; ask '[::1]:8080'", want: "hello\nhello\n",
	},
	{
		page: "fdkit.1", blocks: []string{"fdkit listen unix:/run/echo.sock | fdkit pool cat"},
		script: "run 1; ask unix:/run/echo.sock", want: "hello\n",
	},
	{
		page:   "fdkit.1",
		blocks: []string{"fdkit listen --to /run/web.q :8080", "fdkit pool --from /run/web.q ./handler"},
		script: "run 1; run 2; ask 127.0.0.1:8080", want: "handler: hello\n",
	},
	{
		page:   "fdkit.1",
		blocks: []string{"fdkit listen :9000 | while fdkit recv-exec ./one-client; do :; done"},
		script: "run 1; ask 127.0.0.1:9000; ask 127.0.0.1:9000", want: "one-client: hello\none-client: hello\n",
	},
	{
		page: "fdkit.1", blocks: []string{"fdkit listen :80 |"},
		script: "run 1; ask 127.0.0.1:80", want: "hello\n",
		needs: []string{"setpriv"}, root: true,
	},

	{
		page: "fdkit-listen.1", blocks: []string{"fdkit listen :8080 | fdkit pool cat"},
		script: "run 1; ask 127.0.0.1:8080", want: "hello\n",
	},
	{
		page:   "fdkit-listen.1",
		blocks: []string{"fdkit listen 127.0.0.1:8080 '[::1]:8081' unix:/run/echo.sock | fdkit pool cat"},
		script: "run 1; ask 127.0.0.1:8080; ask '[::1]:8081'; ask unix:/run/echo.sock", want: "hello\nhello\nhello\n",
	},
	{
		page:   "fdkit-listen.1",
		blocks: []string{"fdkit listen --metrics 127.0.0.1:9101 :8080 |"},
		needs:  []string{"curl"},
		script: "run 1; ask 127.0.0.1:8080\n" +
			"for at in 9101 9102; do curl -sS 127.0.0.1:$at/metrics | grep -xE 'fdkit_(sent|received)_total .*'; done",
		want: "hello\nfdkit_sent_total 1\nfdkit_received_total 1\n",
	},
	{
		page:   "fdkit-listen.1",
		blocks: []string{"fdkit listen --address-fd 3 127.0.0.1:0 3>address | fdkit pool cat"},
		script: "run 1; await 'test -s address'; ask $(cat address)", want: "hello\n",
	},
	{
		page:   "fdkit-listen.1",
		blocks: []string{"fdkit listen -1 --to /run/web.q 127.0.0.1:0 >port"},
		script: "run 1; fdkit pool --from /run/web.q cat & await 'test -s port'; ask 127.0.0.1:$(cat port)", want: "hello\n",
	},
	{
		page: "fdkit-listen.1", files: map[string]string{"run": "#!/bin/sh"},
		script: "./run 3>ready & await 'test -s ready'; od -An -c ready; fdkit pool --from /run/web.q cat & ask 127.0.0.1:8080",
		want:   "  \\n\nhello\n",
	},
	{
		page: "fdkit-listen.1", blocks: []string{"fdkit listen --to /run/web.q systemd:"},
		script: "fdkit bind :8080 $(cat 1) & fdkit pool --from /run/web.q cat & ask 127.0.0.1:8080",
		want:   "hello\n",
	},
	{
		page:   "fdkit-listen.1",
		blocks: []string{"fdkit listen --to /run/web.q --mode 0660 --owner :www-data :80"},
		script: `run 1
await 'test -S /run/web.q'
stat -c '%a %U %G' /run/web.q
setpriv --reuid=nobody --regid=www-data --clear-groups fdkit pool --from /run/web.q cat &
ask 127.0.0.1:80`,
		want: "660 root www-data\nhello\n", needs: []string{"setpriv"}, root: true,
	},
	{
		page: "fdkit-listen.1", blocks: []string{`fdkit listen --nodelay --keepalive-idle 1m --keepalive-interval 10 \`},
		script: "run 1; ask 127.0.0.1:8080", want: "handler: hello\n",
	},
	{
		page: "fdkit-listen.1", blocks: []string{`fdkit listen --deny 192.0.2.66 --allow 192.0.2.0/24 --allow 127.0.0.0/8 \`},
		script: `ip addr add 192.0.2.65/32 dev lo; ip addr add 192.0.2.66/32 dev lo; ip addr add 192.0.3.1/32 dev lo
run 1; ask 127.0.0.1:8080
for ip in 192.0.2.65 192.0.2.66 192.0.3.1; do echo "$ip: $(echo hello | dial -from $ip 127.0.0.1:8080 2>/dev/null)"; done`,
		want: "handler: hello\n192.0.2.65: handler: hello\n192.0.2.66: \n192.0.3.1: \n",
	},
	{
		page: "fdkit-listen.1", blocks: []string{`(umask 0; exec fdkit listen --allow uid=root --allow gid=www-data \`},
		script: `run 1; ask unix:/run/web.sock
for group in www-data nogroup; do
	echo "$group: $(echo hello | setpriv --reuid=nobody --regid=$group --clear-groups nc -NU /run/web.sock 2>/dev/null)"
done`,
		want: "handler: hello\nwww-data: handler: hello\nnogroup: \n", needs: []string{"nc", "setpriv"}, root: true,
	},
	{
		page:   "fdkit-listen.1",
		blocks: []string{"fdkit listen --rules web.rules --to /run/web.q :8080 &", "mv new.rules web.rules"},
		script: `echo 'allow 127.0.0.1' >web.rules; echo 'deny all' >new.rules
run 1; fdkit pool --from /run/web.q ./handler & ask 127.0.0.1:8080
run 2; await 'test -z "$(echo hello | dial 127.0.0.1:8080 2>/dev/null)"'
kill -0 "$(cat listen.pid)"; echo still there`,
		want: "handler: hello\nstill there\n",
	},
	{
		page: "fdkit-listen.1", blocks: []string{"fdkit listen --proxy-protocol --trust 127.0.0.1 127.0.0.1:8080 |"},
		script: `run 1; ask 127.0.0.1:8080 "$(printf 'PROXY UNKNOWN\r\nhello')"`, want: "handler: hello\n",
	},
	{
		page: "fdkit-listen.1", blocks: []string{"fdkit listen --source-rate 10/s --source-burst 50 --source-prefix 24,56 :8080 |"},
		script: "run 1; ask 127.0.0.1:8080", want: "handler: hello\n",
	},
	{
		page: "fdkit-listen.1", blocks: []string{`kill -USR1 "$(cat listen.pid)"`},
		script: `fdkit listen --to /run/web.q :8080 2>log & echo $! >listen.pid
fdkit pool --from /run/web.q ./handler & ask 127.0.0.1:8080
sed -i 's/^# later/await "grep -q pauses log"; cat log/' 1; sh ./1; await 'grep -q again log'; ask 127.0.0.1:8080`,
		want: "handler: hello\nfdkit listen: accepting pauses until SIGUSR2\nhandler: hello\n",
	},
	{
		page:   "fdkit-listen.1",
		blocks: []string{"fdkit listen --reuseport --to /run/web.q --ready-fd 3 :8080 3>ready &"},
		script: `fdkit pool --from /run/web.q ./handler &
fdkit listen --reuseport --to /run/web.q :8080 &
echo $! >old.pid
ask 127.0.0.1:8080
run 1
wait $(cat old.pid)
ask 127.0.0.1:8080`,
		want: "handler: hello\nhandler: hello\n",
	},

	{
		page:   "fdkit-listen.1",
		blocks: []string{"fdkit listen --user nobody :80 | fdkit pool --user nobody ./handler"},
		script: "chmod 755 . .. ; run 1; ask 127.0.0.1:80", want: "handler: hello\n", root: true,
	},
	{
		page:   "fdkit-listen.1",
		blocks: []string{`fdkit listen --busy-message '421 too many connections\r\n' :2525 |`},
		script: "run 1; ask 127.0.0.1:2525", want: "handler: hello\n",
	},

	{
		page: "fdkit-serve.1", blocks: []string{"fdkit serve -v :8080 cat"},
		script: "run 1 2>/dev/null; ask 127.0.0.1:8080; ask '[::1]:8080'", want: "hello\nhello\n",
	},
	{
		page: "fdkit-serve.1", blocks: []string{"fdkit serve --user nobody :80 busybox httpd -i -h www"},
		script: `mkdir www; echo hello >www/greeting.txt; chmod 755 . ..; run 1
await "printf 'GET /greeting.txt HTTP/1.0\r\n\r\n' | dial 127.0.0.1:80 >got"; tail -n 1 got`,
		want: "hello\n", needs: []string{"busybox"}, root: true,
	},
	{
		page: "fdkit-serve.1", blocks: []string{"fdkit serve 127.0.0.1:8080 unix:/run/one.sock -- one:client"},
		script: "mv one-client one:client; PATH=$PATH:.; run 1; ask 127.0.0.1:8080; ask unix:/run/one.sock",
		want:   "one-client: hello\none-client: hello\n",
	},
	{
		page: "fdkit-serve.1", blocks: []string{`fdkit serve -n 10 --busy-message 'come back later\n' :8080 ./handler`},
		script: "run 1; ask 127.0.0.1:8080", want: "handler: hello\n",
	},

	{
		page: "fdkit-bind.1", blocks: []string{"fdkit bind 127.0.0.1:8080 gunicorn app:app"},
		script: `cat >app.py <<'END'
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"hello\n"]
END
run 1; await "printf 'GET / HTTP/1.0\r\n\r\n' | dial 127.0.0.1:8080 >got"; tail -n 1 got`,
		want: "hello\n", needs: []string{"gunicorn"},
	},
	{
		page:   "fdkit-bind.1",
		files:  map[string]string{"server.py": "# server.py: fdkit bind :8080 python3 server.py 3"},
		blocks: []string{"fdkit bind --reuseport 4 :8080 | fdkit pool -n 4 python3 server.py 0"},
		script: `$(sed -n '1s/.*: //p' server.py) & server=$!
get '[::1]:8080'; kill $server; wait $server || true
sed 's/pool/pool --grace 0/' 1 >one; sh ./one &
get 127.0.0.1:8080; get 127.0.0.1:8080`,
		want: "hello ::1\nhello ::ffff:127.0.0.1\nhello ::ffff:127.0.0.1\n", needs: []string{"python3"},
	},
	{
		page:   "fdkit-bind.1",
		files:  map[string]string{"server.py": "# server.py: fdkit bind :8080 python3 server.py 3"},
		blocks: []string{"fdkit bind :80 setpriv --reuid=nobody --regid=nogroup --clear-groups \\"},
		script: "chmod 755 ..; PATH=/run/bin:/usr/bin:/bin:$PATH; run 1; server=$!; get 127.0.0.1:80; ps -o user= -p $(pgrep -P $server || echo $server)",
		want:   "hello ::ffff:127.0.0.1\nnobody\n", needs: []string{"python3", "setpriv", "ps"}, root: true,
	},
	{
		page: "fdkit-bind.1", blocks: []string{"fdkit bind --name web :8080 fdkit listen --to /run/web.q systemd:web"},
		script: "run 1; fdkit pool --from /run/web.q cat & ask 127.0.0.1:8080", want: "hello\n",
	},

	{
		page: "fdkit-serve.1", blocks: []string{`fdkit serve --rules web.rules --source-rate 10/s --per-source 5 \`},
		script: `echo 'allow 127.0.0.1' >web.rules; run 1; ask 127.0.0.1:8080
await 'grep -q end web.log'; grep -o '"event":"start"' web.log`,
		want: "handler: hello\n\"event\":\"start\"\n",
	},
	{
		page: "fdkit-serve.1", blocks: []string{`fdkit serve --proxy-protocol --trust 127.0.0.1 --metrics 127.0.0.1:9101 \`},
		script: `mkdir -p /run/web/bin /run/web/www; echo hello >/run/web/www/greeting.txt
cp "$(command -v busybox)" /run/web/bin
for library in $(ldd /run/web/bin/busybox | grep -o '/[^ ]*'); do cp --parents "$library" /run/web; done
sed -i s,/srv/web,/run/web, 1; run 1
await "printf 'PROXY UNKNOWN\r\nGET /greeting.txt HTTP/1.0\r\n\r\n' | dial 127.0.0.1:8080 >got"; tail -n 1 got
printf 'GET /metrics HTTP/1.0\r\n\r\n' | dial 127.0.0.1:9101 | grep '^fdkit_accepted_total'`,
		want: "hello\nfdkit_accepted_total 1\n", needs: []string{"busybox"}, root: true,
	},
	{
		page: "fdkit-connect.1", blocks: []string{"fdkit connect localhost:8080 sh -c 'echo hello >&7; cat <&6'"},
		script: "fdkit listen :8080 | fdkit pool head -n 1 & await 'sh ./1 >got'; cat got", want: "hello\n",
	},
	{
		page: "fdkit-connect.1", blocks: []string{"fdkit connect --fd 0,1 unix:/run/greet.sock ./handler"},
		script: "fdkit listen unix:/run/greet.sock | fdkit recv-exec sh -c 'echo hello; cat >got' & await 'test -S /run/greet.sock'; sh ./1; await 'grep handler got'; cat got",
		want:   "handler: hello\n",
	},
	{
		page: "fdkit-connect.1", blocks: []string{`fdkit connect --dialect ncat localhost:8080 sh -c 'echo "$NCAT_REMOTE_PORT"'`},
		script: "fdkit listen --address-fd 3 :8080 3>a | fdkit pool cat & await 'test -s a'; sh ./1", want: "8080\n",
	},
	{
		page: "fdkit-connect.1", blocks: []string{"fdkit connect 127.0.0.1:8080 |"},
		script: "fdkit listen --address-fd 3 :8080 3>a | fdkit pool head -n 1 & await 'test -s a'; sh ./1", want: "hello\n",
		needs: []string{"unshare"},
	},
	{
		page:   "fdkit-connect.1",
		blocks: []string{"ssh -o ProxyUseFdpass=yes -o 'ProxyCommand=fdkit connect %h:%p' -p 8022 localhost"},
		script: `fdkit listen --address-fd 3 :8022 3>a | fdkit recv-exec sh -c 'head -n 1 >got; echo SSH-2.0-test' &
await 'test -s a'; sh ./1 </dev/null 2>said || true; grep -o SSH-2.0-OpenSSH got`,
		want: "SSH-2.0-OpenSSH\n", needs: []string{"ssh"},
	},
	{
		page: "fdkit-connect.1", blocks: []string{"fdkit connect --timeout 5s --to /run/web.q 127.0.0.1:9000"},
		script: `fdkit listen --address-fd 3 :9000 3>a | fdkit pool sh -c 'echo hello; cat >got' &
fdkit pool --from /run/web.q ./handler &
await 'test -s a'; sh ./1; await 'grep handler got'; cat got`,
		want: "handler: hello\n",
	},

	{
		page: "fdkit-send.1", blocks: []string{"fdkit send r:/etc/shadow |"},
		script: `run 1; wait $!; test "$(cat out1)" = "$(wc -l </etc/shadow)"; echo same`,
		want:   "same\n", needs: []string{"setpriv"}, root: true,
	},
	{
		page: "fdkit-send.1", blocks: []string{"fdkit send --each r:one.txt r:two.txt r:three.txt |"},
		script: `echo 1 >one.txt; echo 1 2 >two.txt; echo 1 2 3 >three.txt; run 1; wait $!; sort err1`,
		want:   "1\n2\n3\n",
	},
	{
		page: "fdkit-send.1", blocks: []string{"fdkit recv-exec --from /run/move.q --fd 3 fdkit listen --to /run/web.q fd:3 &"},
		script: `cat >server.py <<'END'
import socket
listening = socket.socket(fileno=3)
while True:
    connection, _ = listening.accept()
    connection.sendall(b"old: " + connection.recv(100))
    connection.close()
END
fdkit bind 127.0.0.1:8080 python3 server.py & echo $! >old.pid
ask 127.0.0.1:8080
run 1; wait $(cat old.pid) || true
fdkit pool --from /run/web.q ./new-handler & ask 127.0.0.1:8080`,
		want: "old: hello\nnew: hello\n", needs: []string{"python3"},
	},
	{
		page:   "fdkit-send.1",
		files:  map[string]string{"receive.py": "# receive.py: receive descriptors at the Unix socket that the argument names"},
		blocks: []string{`fdkit send --wait 10s --to unix:/run/files.sock --payload 'two files:' \`},
		script: "run 1; python3 receive.py /run/files.sock", want: "two files: /etc/passwd /etc/group\n", needs: []string{"python3"},
	},

	{
		page: "fdkit-recv.1", blocks: []string{"fdkit recv --explain --from unix-listen:/run/in.sock"},
		script: "run 1; await 'test -S /run/in.sock'; fdkit send --to unix:/run/in.sock r:/etc/passwd; wait $!; sed -n 's/, from.*//; s/ SIZE//; 1,2p' out1",
		want:   "message 1: 1 byte, 1 descriptor\n    hex 00\n",
	},
	{
		page: "fdkit-recv.1", blocks: []string{"fdkit recv --from unix-dgram:/run/notify.sock &"},
		script: `printf '#!/bin/sh\nfdkit send --wait 10s --to unix-dgram:"$NOTIFY_SOCKET" --payload FDSTORE=1 r:/etc/passwd\n' >service; chmod +x service
run 1; await 'grep file out1'; sed -n 's/, from.*//; 1,2p' out1`,
		want: "message 1: 9 bytes, 1 descriptor\n    \"FDSTORE=1\"\n",
	},
	{
		page: "fdkit-recv.1", needs: []string{"jq"}, blocks: []string{"fdkit send r:/etc/passwd r:/etc | fdkit recv --json |"},
		script: "sh ./1", want: "/etc/passwd\n",
	},
	{
		page: "fdkit-recv.1", blocks: []string{"fdkit send --name users r:/etc/passwd |"},
		script: "test \"$(sh ./1)\" = \"users: $(head -n 1 /etc/passwd)\"; echo same", want: "same\n",
	},
	{
		page: "fdkit-tap.1", blocks: []string{"fdkit listen :8080 | fdkit tap | fdkit pool cat"},
		script: "run 1; ask 127.0.0.1:8080; grep -c PROTO=TCP err1", want: "hello\n1\n",
	},
	{
		page: "fdkit-tap.1", needs: []string{"tmux", "script"},
		blocks: []string{`fdkit tap ./tapped "/tmp/tmux-$(id -u)/default"`, "tmux -S ./tapped attach"},
		script: `dir=/tmp/tmux-$(id -u); mkdir -p -m 700 $dir; mount -t tmpfs -o mode=700 tmpfs $dir
export TMUX_TMPDIR=/tmp TERM=xterm
tmux -f /dev/null new-session -d 'await "test -e $HOME/end"'
run 1; await 'test -S tapped'
mkfifo keys; exec 9<>keys; script -qec 'sh ./2' /dev/null <keys >screen & client=$!
await 'test "$(tmux list-clients | wc -l)" = 1'; touch "$HOME/end"; wait $client
grep -c ' pty ' err1`,
		want: "2\n",
	},
	{
		page: "fdkit-tap.1", blocks: []string{
			"mv /run/x.sock /run/x.sock.real; fdkit tap /run/x.sock /run/x.sock.real", "mv /run/x.sock.real /run/x.sock",
		},
		script: `fdkit serve unix:/run/x.sock cat &
ask unix:/run/x.sock; sed 's/fdkit tap/exec &/' 1 >tap; sh ./tap 2>err & tap=$!
await 'test -S /run/x.sock && test -S /run/x.sock.real'; ask unix:/run/x.sock; kill $tap; wait $tap; sh ./2; ask unix:/run/x.sock
grep -c '"hello' err`,
		want: "hello\nhello\nhello\n2\n",
	},
	{
		page: "fdkit-tap.1", needs: []string{"jq"},
		blocks: []string{"fdkit tap --json --output /dev/stdout /run/tapped /run/x.sock |"},
		script: `fdkit recv-exec --from unix-listen:/run/x.sock --fd 3 true &
await 'test -S /run/x.sock'; run 1; await 'test -S /run/tapped'
fdkit send --to unix:/run/tapped r:/etc/passwd
await 'test -s out1'; cat out1`,
		want: "file /etc/passwd\n",
	},

	{
		page: "fdkit-route.1", blocks: []string{"fdkit listen :443 |"},
		script: `printf '#!/bin/sh\necho >begun; echo SSH-2.0-server; cat\n' >sshd; chmod +x sshd
sed -i 's,/usr/sbin/sshd -i,./sshd,; s,./https-server,./new-handler,; s/ 2s / 200ms /' 1; run 1
ask 127.0.0.1:443 SSH-2.0-client; printf '\026\003\001\n' | dial 127.0.0.1:443 | tr -dc a-z; echo; rm begun
dial -hold go 127.0.0.1:443 </dev/null >late & late=$!; await 'test -e begun'; touch go; wait $late; cat late`,
		want: "SSH-2.0-server\nSSH-2.0-client\nnew\nSSH-2.0-server\n",
	},
	{
		page:   "fdkit-route.1",
		files:  map[string]string{"names": "# names: which program serves whom"},
		blocks: []string{"fdkit listen --to /run/443.q :443 &"},
		script: `for name in www dev other; do printf '#!/bin/sh\necho %s "$FDKIT_KEY" >>served\n' $name >$name-server; chmod +x $name-server; done
run 1
for name in www.example.org a.dev.example.org example.net; do
	await "openssl s_client -connect 127.0.0.1:443 -servername $name </dev/null >said 2>&1; grep -q $name served"
done
uniq served`,
		want: "www www.example.org\ndev a.dev.example.org\nother example.net\n", needs: []string{"openssl"},
	},
	{
		page: "fdkit-route.1", blocks: []string{"fdkit listen :8080 |"},
		script: `sed -i s,192.0.2.0/24,127.0.0.8/29, 1; run 1
ask 127.0.0.1:8080; echo hello | dial -from 127.0.0.9 127.0.0.1:8080`,
		want: "new: hello\nhandler: hello\n",
	},
	{
		page:   "fdkit-route.1",
		files:  map[string]string{"worker.py": "# worker.py: adds up the numbers that clients send for one job"},
		blocks: []string{"fdkit listen :9000 | fdkit route --by line --consume --to '*=@jobs' &"},
		script: `sed -i 's/idle 10s/idle 300ms/' 1; run 1
await 'printf "red\n1\n" | dial 127.0.0.1:9000'
for n in 2 3 4; do printf "red\n$n\n" | dial 127.0.0.1:9000; printf "blue green\n$n\n" | dial 127.0.0.1:9000; done
sum() { await "test -s $1 && test \$((\$(paste -sd+ $1))) = $2"; echo $1 $2; }
sum red.out 10; sum blue%20green.out 9`,
		want: "red.out 10\nblue%20green.out 9\n", needs: []string{"python3"},
	},

	{
		page: "fdkit-recv-exec.1", blocks: []string{"fdkit listen :9000 | fdkit recv-exec cat"},
		script: "run 1; ask 127.0.0.1:9000; wait $!", want: "hello\n",
	},
	{
		page:   "fdkit-recv-exec.1",
		blocks: []string{"fdkit listen :9000 | while fdkit recv-exec ./one-client; do :; done"},
		script: "run 1; ask 127.0.0.1:9000; ask 127.0.0.1:9000", want: "one-client: hello\none-client: hello\n",
	},
	{
		page: "fdkit-recv-exec.1", blocks: []string{"fdkit listen :9000 | {"},
		script: "run 1; ask 127.0.0.1:9000; ask 127.0.0.1:9000; wait $!", want: "one-client: hello\none-client: hello\n",
	},
	{
		page:   "fdkit-recv-exec.1",
		blocks: []string{"fdkit listen :9000 | fdkit recv-exec --fd 6,7 sh -c 'cat <&6 >&7'"},
		script: "run 1; ask 127.0.0.1:9000; wait $!", want: "hello\n",
	},
	{
		page:   "fdkit-recv-exec.1",
		blocks: []string{"fdkit listen :9000 | fdkit recv-exec --stderr sh -x ./one-client"},
		script: "run 1; ask 127.0.0.1:9000; wait $!", want: "+ read -r line\n+ echo one-client: hello\none-client: hello\n",
	},
	{
		page:   "fdkit-recv-exec.1",
		blocks: []string{`fdkit listen :9000 | fdkit recv-exec --dialect xinetd sh -c 'echo "$REMOTE_HOST"'`},
		script: "run 1; get 127.0.0.1:9000; wait $!", want: "127.0.0.1\n",
	},
	{
		page:   "fdkit-recv-exec.1",
		blocks: []string{"fdkit recv-exec --wait 10s --from /run/web.q ./one-client"},
		script: "run 1; fdkit listen --to /run/web.q :9000 & ask 127.0.0.1:9000", want: "one-client: hello\n",
	},

	{
		page: "fdkit-pool.1", files: map[string]string{"handler": "#!/bin/sh"},
		blocks: []string{"fdkit listen :8080 | fdkit pool -v -n 100 ./handler 2>pool.log"},
		script: `run 1; ask 127.0.0.1:8080 Ann; await 'grep -q end pool.log'
sed -E 's/[0-9.]+(µs|ms|s)/TIME/; s/pid [0-9]+/pid PID/; s/:[0-9]+,/:PORT,/' pool.log`,
		want: "hello Ann, you come from 127.0.0.1\n" +
			"fdkit pool: start pid PID for 127.0.0.1:PORT, waited TIME, running 1/100\n" +
			"fdkit pool: end pid PID for 127.0.0.1:PORT, ran TIME, exit 0, running 0/100\n",
	},
	{
		page: "fdkit-pool.1", blocks: []string{`fdkit listen :8080 | fdkit pool -n 200 --per-source 4/32,56 \`},
		script: `run 1; ask 127.0.0.1:8080
sed -i '1a echo >>begun' handler
for i in 1 2 3 4; do dial -hold go 127.0.0.1:8080 </dev/null >held & done
await 'test "$(cat begun | wc -l)" = 4'
ask 127.0.0.1:8080 | tr '\r' '|'; ask '[::1]:8080'; touch go`,
		want: "handler: hello\ntoo many connections|\nhandler: hello\n",
	},
	{
		page: "fdkit-pool.1", blocks: []string{"fdkit listen :8080 | fdkit pool -n 200 --idle-timeout 5m ./handler"},
		script: `sed -i s/5m/300ms/ 1; run 1
await 'dial -hold never 127.0.0.1:8080 </dev/null' && grep -o 'nothing has gone over its connection for .*' err1; ask 127.0.0.1:8080`,
		want: "nothing has gone over its connection for 300ms\nhandler: hello\n",
	},
	{
		page: "fdkit-pool.1", blocks: []string{"fdkit listen :8080 | fdkit pool busybox httpd -i -h www"},
		script: `mkdir www; echo hello >www/greeting.txt; run 1
await "printf 'GET /greeting.txt HTTP/1.0\r\n\r\n' | dial 127.0.0.1:8080 >got"; tail -n 1 got`,
		want: "hello\n", needs: []string{"busybox"},
	},
	{
		page:   "fdkit-pool.1",
		blocks: []string{"fdkit listen :9418 | fdkit pool git daemon --inetd --export-all --base-path=repos"},
		script: `git init -q repos/project
git -C repos/project -c user.name=a -c user.email=a@example.org commit -q --allow-empty -m hello
run 1; await 'git clone -q git://127.0.0.1/project 2>&1'; git -C project log --format=%s`,
		want: "hello\n", needs: []string{"git"},
	},
	{
		page:   "fdkit-pool.1",
		blocks: []string{"fdkit pool --grace 30s --from /run/web.q ./handler"},
		script: "run 1; fdkit listen --to /run/web.q :8080 & ask 127.0.0.1:8080", want: "handler: hello\n",
	},
	{
		page: "fdkit-pool.1", blocks: []string{"fdkit listen --to /run/web.q :8080 &"},
		script: "run 1; await 'echo hello | dial 127.0.0.1:8080 | grep new'; ask 127.0.0.1:8080", want: "new: hello\n",
	},
	{
		page: "fdkit-pool.1", blocks: []string{"fdkit listen :80 | fdkit pool --user nobody --no-new-privs \\"},
		script: `mkdir -m 755 /run/www; printf '#!/bin/sh\ncat >/dev/null; id -un; ulimit -n\n' >/run/www/handler; chmod 755 /run/www/handler
run 1; ask 127.0.0.1:80`,
		want: "nobody\n64\n", root: true,
	},
	{
		page: "fdkit-pool.1", blocks: []string{"fdkit listen :8080 |"},
		script: "run 1; get '[::1]:8080'", want: "::1 [0000:0000:0000:0000:0000:0000:0000:0001]\n",
	},
	{
		page: "fdkit-pool.1", blocks: []string{"fdkit listen :8081 |"},
		script: "run 1; ask 127.0.0.1:8081; ask 127.0.0.1:8081", want: "handler: hello\nhandler: hello\n",
	},
	{
		page: "fdkit-pool.1", blocks: []string{"fdkit listen :8082 |"},
		script: "run 1; ask 127.0.0.1:8082; ask 127.0.0.1:8082", want: "handler: hello\nhandler: hello\n",
	},
	{
		page: "fdkit-pool.1", blocks: []string{"fdkit listen :8080 | fdkit pool -n 1 ./handler"},
		script: "run 1; ask 127.0.0.1:8080", want: "handler: hello\n",
	},

	{
		page: "fdkit-merge.1", blocks: []string{"fdkit listen :7000 | fdkit merge --idle 24h >>lines.log"},
		script: "run 1; await 'dial 127.0.0.1:7000 </dev/null'; for i in 1 2 3; do echo $i | dial 127.0.0.1:7000; done; await 'test \"$(wc -l <lines.log)\" = 3'; sort lines.log",
		want:   "1\n2\n3\n",
	},
	{
		page: "fdkit-merge.1", blocks: []string{"fdkit listen :7000 | fdkit merge --end total | awk '{ sum += $1 } END { print sum }'"},
		script: "run 1; sum=$!; await 'dial 127.0.0.1:7000 </dev/null'; for n in 1 20 300 total; do echo $n | dial 127.0.0.1:7000; done; wait $sum; cat out1",
		want:   "321\n",
	},
	{
		page: "fdkit-merge.1", blocks: []string{"fdkit pool --from /run/jobs.q --key FDKIT_KEY --idle 1m --resident -- \\", "fdkit listen :7000 | fdkit route --by line --consume --to '*=/run/jobs.q'"},
		script: `sed -i 's/^fdkit pool/exec &/' 1; run 1; pool=$!; await 'test -S /run/jobs.q'; run 2; await 'dial 127.0.0.1:7000 </dev/null'
clients=; for i in 1 2 3 4; do for job in red ../blue; do printf '%s\nline of %s\n%s\n' $job $job $i | dial 127.0.0.1:7000 & clients="$clients $!"; done; done
wait $clients; kill $pool; wait $pool
grep -h line red.out %2E.%2Fblue.out | sed 's/^ *//'; cat red.out | wc -l`,
		want: "4 line of red\n4 line of ../blue\n5\n",
	},
	{
		page: "fdkit-merge.1", blocks: []string{"fdkit send --each r:one.fifo r:two.fifo | fdkit merge"},
		script: "mkfifo one.fifo two.fifo; run 1; merge=$!; echo one >one.fifo; echo two >two.fifo; wait $merge; sort out1",
		want:   "one\ntwo\n",
	},

	{
		page: "fdkit-completion.1", blocks: []string{"mkdir -p ~/.local/share/bash-completion/completions"},
		script: "run 1; wait $!; bash -n ~/.local/share/bash-completion/completions/fdkit; grep -c complete ~/.local/share/bash-completion/completions/fdkit >count; echo done",
		want:   "done\n", needs: []string{"bash"},
	},
	{
		page: "fdkit-completion.1", blocks: []string{`eval "$(fdkit completion bash)"`},
		script: "bash -c '. ./1; complete -p fdkit' | grep -o '[^ ]*$'", want: "fdkit\n", needs: []string{"bash"},
	},
	{
		page: "fdkit-completion.1", blocks: []string{"mkdir -p ~/.zfunc"},
		script: "run 1; wait $!; head -n 1 ~/.zfunc/_fdkit", want: "#compdef fdkit\n",
	},
	{
		page: "fdkit-completion.1", blocks: []string{"mkdir -p ~/.config/fish/completions"},
		script: "run 1; wait $!; grep -q '^complete ' ~/.config/fish/completions/fdkit.fish; echo done", want: "done\n",
	},

	{
		page: "fdkit-environ.7", blocks: []string{"fdkit listen :8080 | fdkit pool env"},
		script: `run 1; get 127.0.0.1:8080 | grep -E '^(FDKIT|PROTO|REMOTE|TCP|UNIX)' |
sed -E 's/(REMOTE_?PORT)=[0-9]+$/\1=PORT/; s/=[0-9]+\.[0-9]{6}$/=TIME/' | LC_ALL=C sort`,
		want: "FDKIT_ACCEPTED=TIME\nPROTO=TCP\nREMOTE_ADDR=127.0.0.1\nREMOTE_PORT=PORT\n" +
			"TCPLOCALIP=127.0.0.1\nTCPLOCALPORT=8080\nTCPREMOTEIP=127.0.0.1\nTCPREMOTEPORT=PORT\n",
	},
	{
		page: "fdkit-environ.7", blocks: []string{"fdkit listen :8080 | fdkit pool --dialect cgi env"},
		script: `run 1; get 127.0.0.1:8080 | grep -E '^(REMOTE|SERVER)_' | sed -E 's/(REMOTE_PORT)=[0-9]+$/\1=PORT/' | LC_ALL=C sort`,
		want:   "REMOTE_ADDR=127.0.0.1\nREMOTE_HOST=127.0.0.1\nREMOTE_PORT=PORT\nSERVER_ADDR=127.0.0.1\nSERVER_PORT=8080\n",
	},
	{
		page: "fdkit-environ.7", files: map[string]string{"handler": "#!/bin/sh"},
		script: "fdkit listen :8080 | fdkit pool ./handler & get 127.0.0.1:8080; get '[::1]:8080'", want: "welcome\nwelcome\n",
	},
	{
		page:   "fdkit-environ.7",
		blocks: []string{"fdkit pool --accept-env 'GEO_*' --from unix-listen:/run/geo.sock env"},
		script: `run 1; await 'test -S /run/geo.sock'; python3 -c 'import socket
queue = socket.socket(socket.AF_UNIX)
queue.connect("/run/geo.sock")
mine, theirs = socket.socketpair()
socket.send_fds(queue, [b"FDKIT=1\0GEO_COUNTRY=NL\0OTHER=no\0LD_PRELOAD=no\0"], [theirs.fileno()])
theirs.close()
print(mine.makefile().read())' | grep -E 'GEO|OTHER|LD_PRELOAD'`,
		want: "GEO_COUNTRY=NL\n", needs: []string{"python3"},
	},

	{
		page: "fdkit-grab.1", blocks: []string{`kill -STOP "$(cat pid)"`},
		script: `printf 'one\ntwo\n' >in; sleep 100 <in & echo $! >pid; await 'grep -q sleep /proc/$(cat pid)/comm'
sh ./1; fdkit grab "$(cat pid):0" cat`,
		want: "one\ntwo\n",
	},
	{
		page: "fdkit-grab.1", blocks: []string{`fdkit grab --fd 3 "$(cat pid):5" sh -c 'cat /proc/self/fd/3 >saved'`},
		script: `echo hello >log; sleep 100 5>>log & echo $! >pid; await 'grep -q sleep /proc/$(cat pid)/comm'
rm log; sh ./1; cat saved`,
		want: "hello\n",
	},
	{
		page: "fdkit-grab.1", blocks: []string{`fdkit grab "$(cat pid):stderr" echo 'the disk was full until now'`},
		script: `sleep 100 2>log & echo $! >pid; await 'grep -q sleep /proc/$(cat pid)/comm'; sh ./1; cat log`,
		want:   "the disk was full until now\n",
	},
	{
		page: "fdkit-grab.1", blocks: []string{`fdkit grab "$(cat old.pid)::8080" sh -c '`},
		script: `fdkit serve 127.0.0.1:8080 ./old-handler & echo $! >old.pid; ask 127.0.0.1:8080
run 1; wait $(cat old.pid) || true; ask 127.0.0.1:8080`,
		want: "old: hello\nnew: hello\n",
	},

	{
		page: "fdkit-who.1", blocks: []string{"fdkit who :8080"},
		script: `fdkit bind 127.0.0.1:8080 sleep 100 & pid=$!; await 'grep -q sleep /proc/'$pid'/comm'
. ./1 2>/dev/null | sed -E "s/^ +$pid .* (sleep.*)/\1/; s/ +/ /g; s/, backlog.*//"`,
		want: ":8080: tcp listening at 127.0.0.1:8080\nsleep 3 rw #1\n",
	},
	{
		page: "fdkit-who.1", blocks: []string{`fdkit who "$(cat server.pid):3"`},
		script: `fdkit bind 127.0.0.1:8080 sh -c 'sleep 100 & echo $$ >server.pid; wait' & await 'test -s server.pid'
await '. ./1 2>/dev/null | grep -c same | grep 2'; . ./1 2>/dev/null | grep -c ' 3  *rw  *same'`,
		want: "2\n",
	},
	{
		page: "fdkit-who.1", blocks: []string{`fdkit who --json "$(cat reader.pid):0" |`}, needs: []string{"jq"},
		script: `mkfifo fifo; sleep 100 <fifo & echo $! >reader.pid; sleep 200 >fifo & echo $! >writer.pid
await 'grep -q sleep /proc/$(cat reader.pid)/comm'; await 'grep -q sleep /proc/$(cat writer.pid)/comm'
sh ./1 2>/dev/null >got; test "$(cat got)" = "$(cat writer.pid) sleep"; echo writer`,
		want: "writer\n",
	},
	{
		page: "fdkit-who.1", blocks: []string{`fdkit inspect "$(cat server.pid)" | grep 'peer is'`},
		script: `fdkit bind unix:s sh -c 'echo $$ >server.pid; exec python3 -c "
import socket, time
s = socket.socket(fileno=3)
c, _ = s.accept()
time.sleep(100)"' & await 'test -S s'
python3 -c 'import socket, time; s = socket.socket(socket.AF_UNIX); s.connect("s"); time.sleep(100)' & pid=$!
await '. ./1 | grep -q "peer is pid '$pid' (python3)"'; echo yes`,
		want: "yes\n", needs: []string{"python3"},
	},
	{
		page: "fdkit-who.1", blocks: []string{"fdkit who /var/log/web.log.1"},
		script: `mount -t tmpfs tmpfs /var/log; sleep 100 >/var/log/web.log & pid=$!; await 'grep -q sleep /proc/'$pid'/comm'
mv /var/log/web.log /var/log/web.log.1; . ./1 2>/dev/null | grep -c "^ *$pid .* 1 *w *#1"`,
		want: "1\n",
	},

	{
		page: "fdkit-queue.1",
		blocks: []string{
			"fdkit queue --all", `fdkit queue "$(cat pid)"`,
			"fdkit queue --all --json | jq -c '.holders[0].pid as $pid |",
		},
		script: `echo >/run/lost.log
fdkit send --payload found --to ./q r:/run/lost.log & echo $! >pid
await 'fdkit queue "$(cat pid)" | grep -q found'
sh ./1 | grep -c 'message: 5 bytes, "found", 1 descriptor'
sh ./2 | grep -c /run/lost.log
test "$(sh ./3)" = "$(cat pid)"; echo same`,
		want: "1\n1\nsame\n", needs: []string{"jq"},
	},
	{
		page:   "fdkit-drain.1",
		blocks: []string{"fdkit pool --from /run/spare.q ./handler &", `fdkit drain --count 1 --from "$(cat stuck.pid):0" | fdkit recv-exec --fd 3 true`},
		script: `cat >stuck.py <<'END'
import os, signal, socket
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
for text in "first", "second":
    client, server = socket.socketpair()
    client.sendall(text.encode() + b"\n")
    socket.send_fds(a, [text.encode()], [server.fileno()])
    server.close()
os.dup2(b.fileno(), 0)
print(os.getpid(), file=open("stuck.pid", "w"))
print(client.recv(100).decode(), end="", flush=True)
signal.pause()
END
python3 stuck.py & await 'test -s stuck.pid'; sh ./2
fdkit queue $(cat stuck.pid):0 | grep -c '^  message:'
sed -i '2s/^/await "test -S \/run\/spare.q"; /' 1; sh ./1 2>/dev/null
await '! fdkit queue --all | grep -q second'; kill $(cat stuck.pid)`,
		want: "1\nhandler: second\n", needs: []string{"python3"},
	},
	{
		page: "fdkit-torture.1", blocks: []string{"fdkit torture --seed 1 --case many --run fdkit recv-exec cat"},
		script: "sh ./1 2>log", want: "seed 1\ncorrect  many                 253 descriptors in a message\n1 case: 1 correct\n",
	},
	{
		page: "fdkit-torture.1", needs: []string{"python3"},
		blocks: []string{"fdkit torture --seed 1 --case two unix:/run/naive.sock"},
		files:  map[string]string{"naive.py": "# naive.py: serve the Unix socket that the argument names"},
		script: "python3 naive.py /run/naive.sock &\nsh ./1 2>log | cut -d' ' -f1-4 | head -2", want: "seed 1\nLEAKED   two\n",
	},
	{
		page: "fdkit-doctor.1", blocks: []string{"(ulimit -n 20; fdkit doctor)"},
		script: "sh ./1 >out || echo \"= $?\"; grep -oE '^[a-z]+ +(open-files|rights) ' out; grep -c '^[0-9]* checks: ' out",
		want:   "= 1\nwarning open-files \nerror   rights \n1\n",
	},
	{
		page: "fdkit-doctor.1", blocks: []string{"fdkit doctor -v --sndbuf 65536 | grep queue-depth"},
		script: "sh ./1 | grep -oE 'SO_SNDBUF 65536: .* [0-9]{2,} fit'| sed 's/[0-9]* messages/N messages/; s/[0-9]* fit/N fit/'",
		want:   "SO_SNDBUF 65536: poll says there is room for N messages, and N fit\n",
	},
	{
		page: "fdkit-doctor.1", blocks: []string{"fdkit doctor -v | grep -E '^[a-z]+ +(open-files|nr-open|file-max|backlog|processes) '"},
		script: "sh ./1 | awk '{ print $2 }'",
		want:   "open-files\nnr-open\nfile-max\nbacklog\nprocesses\n",
	},
	{
		page: "fdkit-doctor.1", needs: []string{"jq"},
		blocks: []string{"fdkit doctor --json --pid \"$(cat service.pid)\" |"},
		script: "echo $$ >service.pid; sh ./1 | sed \"s/$$/PID/; s/[0-9][0-9]*/N/g\"",
		want:   "process PID: soft limit N, hard limit N, in use N\nuser N: N in flight, limit N, and exempt\n", root: true,
	},

	{
		page: "fdkit-inspect.1", blocks: []string{"fdkit inspect 3</etc/passwd 4>>log"},
		script: `. ./1 | sed -nE 's/^([34]) +(r|w) +file +[^ ]*\/([a-z]+), .*bytes, at 0/\1 \2 \3/p'`,
		want:   "3 r passwd\n4 w log [append]\n",
	},
	{
		page: "fdkit-inspect.1", blocks: []string{"fdkit listen :8080 | fdkit pool sh -c 'fdkit inspect :0'"},
		script: "run 1; get 127.0.0.1:8080 | sed -E 's/:[0-9]+ [a-z-]+/:PORT/; s/ +/ /g; s/, receiving has ended//'",
		want:   "0 rw tcp6 127.0.0.1:8080->127.0.0.1:PORT\n",
	},
	{
		page: "fdkit-inspect.1", needs: []string{"jq"},
		blocks: []string{"fdkit inspect --json $(cat pid): | jq -c 'select(.close_on_exec | not) | [.fd, .kind]'"},
		script: "sleep 100 3</etc/passwd & echo $! >pid; await 'grep -q sleep /proc/$(cat pid)/comm'; run 1; wait $!; grep 3, out1",
		want:   "[3,\"file\"]\n",
	},

	{
		page:  "fdkit-protocol.7",
		files: map[string]string{"receiver.py": "# receiver.py: greet each connection that comes through the Unix socket stdin"},
		blocks: []string{
			"fdkit listen unix:/run/greet.sock | fdkit recv-exec python3 receiver.py",
			"fdkit listen --to unix:/run/greet.sock :8080",
		},
		script: "run 1; await 'test -S /run/greet.sock'; run 2; get 127.0.0.1:8080; get '[::1]:8080'",
		want:   "hello 127.0.0.1\nhello ::1\n", needs: []string{"python3"},
	},
	{
		page: "fdkit-protocol.7",
		files: map[string]string{
			"receiver.py": "# receiver.py: greet each connection that comes through the Unix socket stdin",
			"attach.py":   "# attach.py: fdkit listen :8080 | python3 attach.py python3 receiver.py",
		},
		blocks: []string{"fdkit listen :8080 | python3 attach.py python3 receiver.py"},
		script: "run 1; get 127.0.0.1:8080; get 127.0.0.1:8080",
		want:   "hello 127.0.0.1\nhello 127.0.0.1\n", needs: []string{"python3"},
	},
	{
		page:   "fdkit-protocol.7",
		files:  map[string]string{"named.py": "# named.py: receive one connection from the queue that the argument names"},
		blocks: []string{"python3 named.py /run/web.q"},
		script: "fdkit listen --to /run/web.q :8080 & await 'test -S /run/web.q'; run 1; get 127.0.0.1:8080",
		want:   "hello from Python\n", needs: []string{"python3"},
	},
	{
		page:  "fdkit-protocol.7",
		files: map[string]string{"sender.py": "# sender.py: send the file that the second argument names"},
		blocks: []string{
			"fdkit recv-exec --fd 0 --from unix-listen:/run/in.sock wc -l",
			"python3 sender.py /run/in.sock /etc/passwd",
		},
		script: `run 1; receiver=$!; await 'test -S /run/in.sock'; run 2; wait $receiver
test "$(cat out1)" -eq "$(wc -l </etc/passwd)"; echo same`,
		want: "same\n", needs: []string{"python3"},
	},
}

// TestManExamples runs every literal block of the EXAMPLES sections, each where
// nothing but itself is: in a network namespace of its own, so that :8080 is free
// and out of others' reach, and with a /run and a directory of its own.
func TestManExamples(t *testing.T) {
	dir, err := fdkit()
	if err != nil {
		t.Fatalf("go build fdkit: %v", err)
	}
	fdtest.NeedsProgram(t, "ip", "mount")
	namespaces := exec.Command("true")
	namespaces.SysProcAttr = apart()
	if err := namespaces.Run(); err != nil {
		fdtest.Lacks(t, "namespaces cannot be made: %v", err)
	}
	blocks := map[string]map[string]string{} // by page and first line
	for name, page := range manPages(t) {
		blocks[name] = literalBlocks(t, name, manSection(page, "EXAMPLES"))
	}
	checked := map[string]bool{}
	for _, e := range manExamples {
		for _, first := range slices.Concat(e.blocks, slices.Collect(maps.Values(e.files))) {
			if _, ok := blocks[e.page][first]; !ok {
				t.Errorf("man/%s has no example that begins %q", e.page, first)
			}
			checked[e.page+" "+first] = true
		}
	}
	for name := range blocks {
		for first := range blocks[name] {
			if !checked[name+" "+first] {
				t.Errorf("man/%s: nothing in manExamples runs the example that begins %q", name, first)
			}
		}
	}
	if t.Failed() {
		return
	}
	for i, e := range manExamples {
		t.Run(fmt.Sprintf("%s/%d", e.page, i), func(t *testing.T) {
			t.Parallel()
			e.run(t, filepath.Join(dir, "fdkit"), blocks[e.page])
		})
	}
}

// literalBlocks returns the literal blocks of a section by their first lines, as
// mandoc would show them.
func literalBlocks(t *testing.T, name, section string) map[string]string {
	t.Helper()
	blocks := map[string]string{}
	for _, part := range strings.Split("\n"+section, "\n.Bd -literal")[1:] {
		_, text, _ := strings.Cut(part, "\n")
		text, _, ended := strings.Cut(text, "\n.Ed\n")
		text = strings.NewReplacer(`\e`, `\`, `\&`, "", `\-`, "-", `\(aq`, "'").Replace(text)
		first, _, _ := strings.Cut(text, "\n")
		if _, twice := blocks[first]; twice || !ended {
			t.Errorf("man/%s: example %q is there twice, or has no end", name, first)
		}
		blocks[first] = text + "\n"
	}
	return blocks
}

// apart gives a process a network and mounts of its own.
func apart() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	}
	return attr
}

// The binary is mounted where any user can reach it.
const manPrelude = `set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/bin
: >/run/bin/fdkit
mount --bind "$BINARY" /run/bin/fdkit
ip link set lo up
run() { sh ./$1 >out$1 2>err$1 & }
ask() { await "echo '${2-hello}' | dial '$1' >got"; cat got; }
get() { await "dial '$1' </dev/null >got"; cat got; }
`

func (e *manExample) run(t *testing.T, binary string, blocks map[string]string) {
	fdtest.NeedsProgram(t, e.needs...)
	if e.root {
		fdtest.NeedsRoot(t)
	}
	dir := t.TempDir()
	tmp, home := filepath.Join(dir, "tmp"), filepath.Join(dir, "home")
	if err := errors.Join(os.Mkdir(tmp, 0o777), os.Mkdir(home, 0o777)); err != nil {
		t.Fatal(err)
	}
	files := maps.Clone(helpers)
	for i, first := range e.blocks {
		files[strconv.Itoa(i+1)] = blocks[first]
	}
	for name, first := range e.files {
		files[name] = blocks[first]
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	script := exec.Command("sh", "-c", manPrelude+e.script)
	script.Dir = dir
	script.Env = []string{
		"PATH=/run/bin:" + os.Getenv("PATH"), "BINARY=" + binary, "HOME=" + home, "TMPDIR=" + tmp,
		"TCPREMOTEIP=stale", marker + "=" + dir,
		"GORACE=atexit_sleep_ms=0", // it is a second for each process otherwise
	}
	script.SysProcAttr = apart()
	// Files, as nobody waits for the last writer of those.
	stdout, err := os.Create(filepath.Join(dir, "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	script.Stdout, script.Stderr = stdout, stderr
	if err := script.Start(); err != nil {
		t.Fatal(err)
	}
	expired := time.AfterFunc(30*time.Second, func() { _ = syscall.Kill(-script.Process.Pid, syscall.SIGKILL) })
	runErr := script.Wait()
	expired.Stop()
	_ = syscall.Kill(-script.Process.Pid, syscall.SIGTERM)
	left := leftovers(dir)

	if out := string(readAll(stdout)); runErr != nil || out != e.want {
		t.Errorf("man/%s, %q:\n%s\n%v, printed %q; want %q", e.page, e.blocks, e.script, runErr, out, e.want)
	}
	if left != nil {
		t.Errorf("man/%s, %q: still running three seconds after TERM:\n%s", e.page, e.blocks, strings.Join(left, "\n"))
	}
	if files, _ := filepath.Glob(tmp + "/*"); files != nil {
		t.Errorf("man/%s, %q has left %v behind", e.page, e.blocks, files)
	}
	errOut := string(readAll(stderr))
	logs, _ := filepath.Glob(filepath.Join(dir, "err*"))
	for _, log := range logs {
		text, _ := os.ReadFile(log)
		errOut += string(text)
	}
	if t.Failed() {
		t.Logf("stderr:\n%s", errOut)
	}
}
