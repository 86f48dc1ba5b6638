//go:build linux

package cmd_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestNoNewPrivs holds that with --no-new-privs all threads, and so the programs that
// any of them starts, have given up new privileges. The program is built as make does
// it: in one with cgo, which the race detector takes, this cannot be had.
func TestNoNewPrivs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fdkit")
	if err := build(file, false); err != nil {
		t.Fatalf("go build: %v", err)
	}
	serve := exec.Command(file, "serve", "-1", "--no-new-privs", "127.0.0.1:0", "grep", "NoNewPrivs", "/proc/self/status")
	serve.Stderr = os.Stderr
	stdout, err := serve.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = serve.Process.Signal(syscall.SIGTERM)
		if err := serve.Wait(); err != nil {
			t.Errorf("fdkit serve: %v", err)
		}
	})
	port, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("fdkit serve -1: %v", err)
	}
	conn, err := net.Dial("tcp", "127.0.0.1:"+strings.TrimSpace(port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const want = "NoNewPrivs:\t1\n"
	if got, err := io.ReadAll(conn); err != nil || string(got) != want {
		t.Errorf("the program's status has %q, %v; want %q", got, err, want)
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", serve.Process.Pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("threads: %v, %v", threads, err)
	}
	for _, thread := range threads {
		if status, err := os.ReadFile(thread); err != nil || !strings.Contains(string(status), want) {
			t.Errorf("%s has no %q (%v)", thread, want, err)
		}
	}
}
