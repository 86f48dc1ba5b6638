//go:build linux

package cmd_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"fdkit/cmd"
	"fdkit/internal/fdtest"
)

// TestCompletionCurrent compares the scripts in the repository with those that
// fdkit prints.
func TestCompletionCurrent(t *testing.T) {
	for shell, file := range map[string]string{"bash": "fdkit.bash", "zsh": "_fdkit", "fish": "fdkit.fish"} {
		got := runInProcess(t, "completion", shell)
		want, err := os.ReadFile(filepath.Join("../scripts/completion", file))
		if err != nil {
			t.Error(err)
		} else if got != string(want) {
			t.Errorf("scripts/completion/%s is not what fdkit completion %s prints; make completion renews it", file, shell)
		}
	}
}

// runInProcess returns what fdkit prints to stdout.
func runInProcess(t *testing.T, args ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "stdout")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	stdout := os.Stdout
	os.Stdout = out
	status := cmd.Run(cmd.New("test"), append([]string{"fdkit"}, args...))
	os.Stdout = stdout
	text, err := os.ReadFile(file)
	if err != nil || status != 0 {
		t.Fatalf("fdkit %v: exit status %d, %v; want 0", args, status, err)
	}
	return string(text)
}

// A completionTest is a command line, whose end is to be completed, and what
// must and must not be offered for it.
type completionTest struct {
	line  string
	offer string // separated by blanks
	not   string
}

// What all three shells offer. They run in a directory with the files queue.q and
// serve, which is executable, and the directory sockets with a.sock in it.
var completionTests = []completionTest{
	{"fdkit ", "listen recv-exec pool completion", "queue.q"},
	{"fdkit lis", "listen", "pool"},
	{"fdkit --v", "--version", "--to"},
	{"fdkit listen --", "--to --backlog --owner --help", "--from -1 -v"},
	{"fdkit listen -v --ba", "--backlog", "--to"},
	{"fdkit pool --ac", "--accept-env", "--from"},
	{"fdkit listen --to que", "queue.q", "fd:"},
	{"fdkit pool --from=que", "queue.q", ""},
	{"fdkit pool --from unix-", "unix-listen: unix-dgram:", "unix: queue.q"},
	{"fdkit listen --owner roo", "root", "queue.q"},
	{"fdkit listen --owner root:dae", "root:daemon", ""},
	{"fdkit listen --backlog ", "", "queue.q serve sockets/ --to"},
	{"fdkit pool --log ", "text json", "queue.q --to"},
	{"fdkit pool --metrics ", "unix: tcp:", "--to"},
	{"fdkit listen -v --log j", "json", "text queue.q"},
	{"fdkit listen ", "unix: tcp: tcp4: tcp6: fd:", "queue.q"},
	{"fdkit listen --to queue.q t", "tcp: tcp4:", "unix:"},
	{"fdkit listen unix:sockets/", "unix:sockets/a.sock", ""},
	{"fdkit listen :80 unix:que", "unix:queue.q", ""},
	{"fdkit listen :80 --", "", "--to --backlog"},
	{"fdkit listen -- --", "", "--to --backlog"},
	{"fdkit pool ./ser", "./serve", ""},
	{"fdkit pool -n 3 mkfif", "mkfifo", "queue.q"},
	{"fdkit pool -v -n 3 --wait=3s -- mkfif", "mkfifo", ""},
	{"fdkit recv-exec --stderr mkfif", "mkfifo", ""},
	{"fdkit recv-exec cat que", "queue.q", "--from"},
	{"fdkit recv-exec cat --fro", "", "--from"},
	{"fdkit connect --ti", "--timeout", "--from"},
	{"fdkit connect ", "unix: tcp: tcp4: tcp6:", "queue.q"},
	{"fdkit connect unix:sockets/", "unix:sockets/a.sock", ""},
	{"fdkit connect :80 mkfif", "mkfifo", "unix: queue.q"},
	{"fdkit connect -v unix:sockets/a.sock cat que", "queue.q", "unix:"},
	{"fdkit bind --reu", "--reuseport", "--to"},
	{"fdkit bind ", "unix: tcp: systemd:", "queue.q"},
	{"fdkit bind unix:sockets/", "unix:sockets/a.sock", ""},
	{"fdkit bind :80 t", "tcp: true", "unix:"},
	{"fdkit bind :80 unix:sockets/", "unix:sockets/a.sock", ""},
	{"fdkit bind -v :80 unix:a mkfif", "mkfifo", "unix: queue.q"},
	{"fdkit bind :80 unix:a cat que", "queue.q", "unix:"},
	{"fdkit bind :80 -- mkfif", "mkfifo", "unix:"},
	{"fdkit inspect --", "--json --help", "--from"},
	{"fdkit inspect 1", "1", "queue.q --json"},
	{"fdkit inspect -v 1", "1", "queue.q"},
	{"fdkit inspect 1:3 ", "1", "queue.q --json"},
	{"fdkit listen --proto ", "raw fdkit openssh", "queue.q --to"},
	{"fdkit recv-exec --proto=ope", "", "raw queue.q"},
	{"fdkit pool --proto o", "openssh", "raw"},
	{"fdkit doctor --", "--json --pid --user --sndbuf", "--from"},
	{"fdkit doctor --pid 1", "1", "queue.q"},
	{"fdkit doctor --user roo", "root", "queue.q"},
	{"fdkit send --pa", "--payload --payload-hex", "--to"},
	{"fdkit send --to unix-d", "unix-dgram:", "r:"},
	{"fdkit send ", "r: w: a: rw: stdin stderr", "queue.q"},
	{"fdkit send r:que", "r:queue.q", ""},
	{"fdkit send --each 3 rw:sockets/", "rw:sockets/a.sock", ""},
	{"fdkit completion ", "bash zsh fish", "queue.q"},
	{"fdkit completion bash ", "", "bash zsh"},
}

func checkOffers(t *testing.T, test completionTest, got []string) {
	t.Helper()
	for _, want := range strings.Fields(test.offer) {
		if !slices.Contains(got, want) {
			t.Errorf("completing %q offers %q; want %s among them", test.line, got, want)
		}
	}
	for _, bad := range strings.Fields(test.not) {
		if slices.Contains(got, bad) {
			t.Errorf("completing %q offers %q; want no %s", test.line, got, bad)
		}
	}
}

func TestCompletionBash(t *testing.T) {
	fdtest.NeedsProgram(t, "bash")
	script := absolute(t, "../scripts/completion/fdkit.bash")
	t.Chdir(completionDir(t))
	for _, test := range completionTests {
		words := readlineWords(test.line)
		// What readline replaces is the last of words.
		already := strings.TrimSuffix(test.line[strings.LastIndex(test.line, " ")+1:], strings.TrimLeft(words[len(words)-1], ":="))
		out := runShell(t, "", "bash", append([]string{
			"--norc", "-c", `source "$1"; COMP_LINE=$2; COMP_POINT=${#2}; shift 2
			COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _fdkit; for word in "${COMPREPLY[@]}"; do echo "$word"; done`,
			"bash", script, test.line,
		}, words...)...)
		var got []string
		for word := range strings.Lines(out) {
			got = append(got, strings.TrimPrefix(already+strings.TrimSpace(word), "--from="))
		}
		checkOffers(t, test, got)
	}
	// With the package bash-completion a program's own completion takes over, at
	// its place in COMP_WORDS, where the value of --wait is a word of its own.
	out := runShell(t, "", "bash", "--norc", "-c", `source "$1"; _command_offset() { COMPREPLY=("at $1"); }
		COMP_LINE='fdkit pool --wait=3s git sta' COMP_WORDS=(fdkit pool --wait = 3s git sta) COMP_CWORD=6
		_fdkit; echo "${COMPREPLY[*]}"`, "bash", script)
	if out != "at 5\n" {
		t.Errorf("_fdkit hands over to _command_offset %q; want %q", out, "at 5\n")
	}
}

// readlineWords returns line cut as COMP_WORDS is.
func readlineWords(line string) []string {
	words := regexp.MustCompile(`[:=]+|[^:= ]+`).FindAllString(line, -1)
	if strings.HasSuffix(line, " ") {
		words = append(words, "")
	}
	return words
}

func TestCompletionFish(t *testing.T) {
	fdtest.NeedsProgram(t, "fish")
	script := absolute(t, "../scripts/completion/fdkit.fish")
	t.Chdir(completionDir(t))
	for _, test := range completionTests {
		out := runShell(t, "", "fish", "--no-config", "-c", `source $argv[1]; complete -C $argv[2]`, script, test.line)
		var got []string
		for offer := range strings.Lines(out) {
			word, _, _ := strings.Cut(strings.TrimSpace(offer), "\t")
			got = append(got, strings.TrimPrefix(word, "--from="))
		}
		checkOffers(t, test, got)
	}
	out := runShell(t, "", "fish", "--no-config", "-c", `source $argv[1]; complete -C 'fdkit li'`, script)
	if want := "listen\taccept connections and send each as a descriptor\n"; out != want {
		t.Errorf("completing %q offers %q; want %q", "fdkit li", out, want)
	}
}

// zshOffers makes compadd, through which zsh's completion offers words, write them
// to a file, and fdkit end each line's part of it.
const zshOffers = `
compadd() {
	local -a offered folder
	if [[ ${@[1,(i)(-|--)]} != *-[DOA]* ]]; then
		builtin compadd -O offered "$@"
		zparseopts -E -a folder p:
		printf '%s\n' ${IPREFIX#--from=}$folder[2]$^offered >>.offers
	fi
	builtin compadd "$@"
}
fdkit() { echo "==" >>.offers }
`

func TestCompletionZsh(t *testing.T) {
	fdtest.NeedsProgram(t, "zsh")
	fdtest.NeedsProgram(t, "script")
	scripts := absolute(t, "../scripts/completion")
	if out := runShell(t, "", "zsh", "-n", filepath.Join(scripts, "_fdkit")); out != "" {
		t.Errorf("zsh -n: %s", out)
	}
	t.Chdir(completionDir(t))
	var typed strings.Builder
	for _, test := range completionTests {
		fmt.Fprintf(&typed, "%s\t\n", test.line)
	}
	screen := typeInto(t, "zsh", zshCompinit(scripts)+zshOffers, typed.String())
	offers, err := os.ReadFile(".offers")
	got := strings.Split(string(offers), "==\n")
	if err != nil || len(got) != len(completionTests)+1 {
		t.Fatalf("zsh has run %d of %d lines, %v; the screen is %q", len(got)-1, len(completionTests), err, screen)
	}
	for i, test := range completionTests {
		checkOffers(t, test, strings.Fields(got[i]))
	}
	if want := "recv-exec   -- receive one descriptor and become a program with it"; !strings.Contains(screen, want) {
		t.Errorf("completing %q shows no %q on the screen %q", "fdkit ", want, screen)
	}
}

// TestCompletionTyped types lines with tabs in them into interactive shells, and
// looks at the arguments that arrive.
func TestCompletionTyped(t *testing.T) {
	fdtest.NeedsProgram(t, "script")
	tests := []struct{ typed, want string }{
		{"fdkit lis\t:80", "listen :80"},
		{"fdkit recv-exec --st\tcat", "recv-exec --stderr cat"},
		{"fdkit listen --to que\t:80", "listen --to queue.q :80"},
		{"fdkit listen --to=que\t:80", "listen --to=queue.q :80"},
		{"fdkit listen un\tsock\ta\t:80", "listen unix:sockets/a.sock :80"},
		{"fdkit pool --from unix-l\tsock\ta\t./ser\t", "pool --from unix-listen:sockets/a.sock ./serve"},
		{"fdkit pool cat --fro\t", "pool cat --fro"},
		{"fdkit completion z\t", "completion zsh"},
	}
	scripts := absolute(t, "../scripts/completion")
	t.Chdir(completionDir(t))
	var typed strings.Builder
	for _, test := range tests {
		typed.WriteString(test.typed + "\n")
	}
	for shell, rc := range map[string]string{"bash": "source " + scripts + "/fdkit.bash\n", "zsh": zshCompinit(scripts)} {
		t.Run(shell, func(t *testing.T) {
			fdtest.NeedsProgram(t, shell)
			os.Remove(".arguments")
			screen := typeInto(t, shell, rc+"fdkit() { echo \"$@\" >>.arguments; }\n", typed.String())
			arguments, err := os.ReadFile(".arguments")
			got := strings.Split(string(arguments), "\n")
			if err != nil || len(got) != len(tests)+1 {
				t.Fatalf("%s has run %d of %d lines, %v; the screen is %q", shell, len(got)-1, len(tests), err, screen)
			}
			for i, test := range tests {
				if got[i] != test.want {
					t.Errorf("typing %q runs fdkit with %q; want %q; the screen is %q", test.typed, got[i], test.want, screen)
				}
			}
		})
	}
}

func zshCompinit(scripts string) string {
	return "fpath=('" + scripts + "' $fpath)\nautoload -Uz compinit && compinit -u -D\n"
}

// typeInto runs bash or zsh in a terminal, with rc as its start file, types the
// lines and returns what the screen shows.
func typeInto(t *testing.T, shell, rc, lines string) string {
	t.Helper()
	commands := map[string]string{
		"bash": "INPUTRC=/dev/null bash --noprofile --rcfile .bashrc -i",
		"zsh":  "ZDOTDIR=$PWD zsh -d -i",
	}
	if err := os.WriteFile("."+shell+"rc", []byte(rc), 0o666); err != nil {
		t.Fatal(err)
	}
	return runShell(t, lines+"exit 0\n", "script", "-qec", "stty columns 200; "+commands[shell], "/dev/null")
}

// completionDir makes the directory that completionTests speak of.
func completionDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, file := range []string{"queue.q", "serve", "sockets/a.sock"} {
		file = filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "queue.q"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// runShell runs a command and returns what it prints.
func runShell(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	command := exec.CommandContext(ctx, name, args...)
	home := t.TempDir() // for what shells write there
	command.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_DATA_HOME="+home, "XDG_CACHE_HOME="+home, "TERM=xterm", "LC_ALL=C.UTF-8")
	command.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	if err := command.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out.Bytes())
	}
	return out.String()
}
