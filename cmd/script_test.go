//go:build linux

package cmd_test

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// TestMain gives the scripts, besides fdkit itself, the programs of tools_test.go.
func TestMain(m *testing.M) {
	testscript.Main(run{m}, map[string]func(){
		"await":    await,
		"burden":   burden,
		"crowd":    crowd,
		"dial":     dial,
		"fields":   fields,
		"filter":   filter,
		"give":     give,
		"gone":     gone,
		"holding":  holding,
		"notified": notified,
	})
}

// run removes what fdkit has built when all tests have run. Descriptors that the tests
// themselves were started with, as in CI, are none of the programs' that they count them in.
type run struct{ *testing.M }

func (r run) Run() int {
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		fmt.Fprintln(os.Stderr, os.NewSyscallError("close_range", err))
		return 1
	}
	defer func() { os.RemoveAll(built) }()
	return r.M.Run()
}

var built string // the directory that fdkit has made

// fdkit builds the real program, once, and returns its directory.
var fdkit = sync.OnceValues(func() (dir string, err error) {
	if built, err = os.MkdirTemp("", "fdkit-test"); err != nil {
		return "", err
	}
	if err := build(filepath.Join(built, "fdkit"), raceEnabled); err != nil {
		return "", err
	}
	return built, buildPackage("fdkit/scripts/examples/epollworker", filepath.Join(built, "epollworker"), raceEnabled)
})

// build builds the program as make does, or with the race detector.
func build(file string, race bool) error { return buildPackage("fdkit", file, race) }

func buildPackage(path, file string, race bool) error {
	args := []string{"build", "-tags", "urfave_cli_no_docs", "-o", file}
	build := exec.Command("go", append(args, path)...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if race { // which takes cgo
		build = exec.Command("go", append(args, "-race", path)...)
	}
	build.Stderr = os.Stderr
	return build.Run()
}

// marker is a variable by which everything that a script has started is found.
const marker = "TESTSCRIPT_ID"

// TestScripts runs testdata/script/*.txtar: the real program in the shell, as its
// users run it.
func TestScripts(t *testing.T) {
	dir, err := fdkit()
	if err != nil {
		t.Fatalf("go build fdkit: %v", err)
	}
	examples, err := filepath.Abs("../scripts/examples")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		// UPDATE=1 rewrites what cmp compares stdout and stderr with.
		UpdateScripts: os.Getenv("UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			tmp := filepath.Join(env.WorkDir, "tmp") // what fdkit leaves there is seen
			env.Setenv("TMPDIR", tmp)
			env.Setenv("PATH", dir+":"+env.Getenv("PATH"))
			env.Setenv("CI", os.Getenv("CI"))
			env.Setenv("EXAMPLES", examples)
			env.Setenv("GORACE", "atexit_sleep_ms=0") // or each exit takes a second
			env.Setenv(marker, env.WorkDir)
			env.Values["env"], env.Values["skip"] = env.Vars, env.T().Skip
			return os.Mkdir(tmp, 0o777)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"shell": shell,
			"needs": needs,
			"build": func(ts *testscript.TestScript, _ bool, args []string) { // build PACKAGE FILE
				ts.Check(buildPackage(args[0], ts.MkAbs(args[1]), raceEnabled))
			},
		},
	})
}

// shell runs a shell script of the txtar file, in a process group of its own:
//
//	shell SHELL FILE [ARGUMENT...]
//
// When the script has ended, or after 60 seconds, the group gets TERM. Whatever
// the script has started must be gone three seconds later, and TMPDIR be empty.
func shell(ts *testscript.TestScript, neg bool, args []string) {
	var out, errOut bytes.Buffer
	command := exec.Command(args[0], args[1:]...)
	env := ts.Value("env").([]string)
	command.Env = append(env[:len(env):len(env)], "WORK="+ts.MkAbs("."))
	command.Dir = ts.MkAbs(".")
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := os.CreateTemp("", "stdout") // files: nobody waits for their last writer
	ts.Check(err)
	stderr, err := os.CreateTemp("", "stderr")
	ts.Check(err)
	defer os.Remove(stdout.Name())
	defer os.Remove(stderr.Name())
	command.Stdout, command.Stderr = stdout, stderr
	ts.Check(command.Start())
	expired := time.AfterFunc(60*time.Second, func() { _ = syscall.Kill(-command.Process.Pid, syscall.SIGTERM) })
	runErr := command.Wait()
	onTime := expired.Stop()
	_ = syscall.Kill(-command.Process.Pid, syscall.SIGTERM)
	left := leftovers(ts.Getenv(marker))

	out.Write(readAll(stdout))
	errOut.Write(readAll(stderr))
	_, _ = out.WriteTo(ts.Stdout())
	_, _ = errOut.WriteTo(ts.Stderr())
	switch {
	case !onTime:
		ts.Fatalf("%v: not done after 60 s", args)
	case left != nil:
		ts.Fatalf("%v: still running three seconds after TERM:\n%s", args, strings.Join(left, "\n"))
	case runErr != nil && !neg:
		ts.Fatalf("%v: %v", args, runErr)
	case runErr == nil && neg:
		ts.Fatalf("%v succeeded; want it to fail", args)
	}
	files, err := filepath.Glob(filepath.Join(ts.Getenv("TMPDIR"), "*"))
	ts.Check(err)
	if files != nil {
		ts.Fatalf("%v has left %v behind", args, files)
	}
}

func readAll(f *os.File) []byte {
	defer f.Close()
	data, err := os.ReadFile(f.Name())
	if err != nil {
		return []byte(err.Error())
	}
	return data
}

// leftovers waits until every process that has the marker's value in its
// environment is gone. It kills and returns those that are not.
func leftovers(id string) (left []string) {
	deadline := time.Now().Add(3 * time.Second)
	for {
		left = nil
		environs, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, file := range environs {
			env, err := os.ReadFile(file)
			if err != nil || !strings.Contains(string(env), marker+"="+id+"\x00") {
				continue
			}
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			args, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
			if err != nil || len(args) == 0 {
				continue // it has ended meanwhile
			}
			left = append(left, fmt.Sprintf("%d %s", pid, strings.ReplaceAll(string(args), "\x00", " ")))
			if time.Now().After(deadline) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// needs skips the script if a program or a file is missing, or if the user is not root and it
// needs root; in CI it fails instead: scripts/install-test-programs installs all
// programs.
func needs(ts *testscript.TestScript, _ bool, args []string) {
	for _, need := range args {
		why := need + " is not installed; scripts/install-test-programs has it"
		_, err := exec.LookPath(need)
		if strings.HasPrefix(need, "/") {
			_, err = os.Stat(need)
		}
		if need == "root" {
			why, err = "only root can run this", nil
			if os.Geteuid() != 0 {
				err = os.ErrPermission
			}
		}
		switch {
		case err == nil:
		case os.Getenv("CI") != "":
			ts.Fatalf("%s", why)
		default:
			ts.Logf("skipped: %s", why)
			ts.Value("skip").(func(...any))(why)
		}
	}
}
