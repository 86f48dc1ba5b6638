//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fdkit/exec"
)

// TestCount: what became of a connection is judged by what its client and those who serve
// know of it.
func TestCount(t *testing.T) {
	for _, c := range []struct {
		what         fate
		begun, taken uint32
		want         figures
	}{
		{served, 1, 1, figures{connections: 1, served: 1}},
		{served, 2, 1, figures{connections: 1, served: 1}}, // the first who began has taken nothing
		{served, 2, 2, figures{connections: 1, served: 1, duplicated: 1}},
		{refused, 0, 0, figures{connections: 1, refused: 1}},
		{reset, 0, 0, figures{connections: 1, reset: 1}},
		{closed, 0, 0, figures{connections: 1, lost: 1}},
		{reset, 1, 0, figures{connections: 1, cut: 1}},
		{closed, 1, 1, figures{connections: 1, cut: 1}},
		{closed, 2, 2, figures{connections: 1, cut: 1, duplicated: 1}},
	} {
		record, err := newRecord(filepath.Join(t.TempDir(), "record"), 1)
		if err != nil {
			t.Fatal(err)
		}
		record.counts[0].begun.Store(c.begun)
		record.counts[0].taken.Store(c.taken)
		l := newLoad("", record, 1)
		l.next.Store(1)
		l.fates[0] = c.what
		var r row
		if l.count(&r); r.figures != c.want {
			t.Errorf("fate %d, begun %d, taken %d is counted as %+v, want %+v", c.what, c.begun, c.taken, r.figures, c.want)
		}
		record.close()
	}
}

// TestExchange: a client is served only if all of its answer comes, and then the end.
func TestExchange(t *testing.T) {
	for _, c := range []struct {
		answer string
		want   fate
	}{{"0\n", served}, {"", closed}, {"0", closed}, {"1\n", closed}, {"0\n0\n", closed}} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := listener.Accept()
			if err == nil {
				_, _ = io.ReadFull(conn, make([]byte, 2))
				_, _ = io.WriteString(conn, c.answer)
				conn.Close()
			}
		}()
		l := load{address: listener.Addr().String()}
		if got, _ := l.exchange(0); got != c.want {
			t.Errorf("the answer %q makes the fate %d, want %d", c.answer, got, c.want)
		}
		listener.Close()
	}
	if got, err := (&load{address: "unix:" + filepath.Join(t.TempDir(), "none")}).exchange(0); got != refused || err == nil {
		t.Errorf("where nobody listens the fate is %d, %v, want %d and an error", got, err, refused)
	}
}

// TestTable: a figure that is not as expected, or a case that expects nothing, is said and
// makes the run fail; the file has all of it.
func TestTable(t *testing.T) {
	good, bad, empty, other := &row{name: "good"}, &row{name: "bad"}, &row{name: "empty"}, &row{name: "other", skipped: "it is Sunday"}
	good.connections, good.served = 5, 5
	good.expectAllServed()
	bad.connections, bad.served, bad.lost = 5, 4, 1
	bad.expectAllServed()
	for _, c := range []struct {
		rows []*row
		ok   bool
		says string
	}{
		{[]*row{good}, true, "1 of 1 cases as expected"},
		{[]*row{good, bad}, false, "NOT AS EXPECTED: all served: 4 of 5"},
		{[]*row{empty}, false, "0 of 1 cases as expected, 0 not run"},
		{[]*row{good, other}, true, "1 of 2 cases as expected, 1 not run"},
	} {
		var table table
		var out bytes.Buffer
		for _, r := range c.rows {
			table.add(&out, r)
		}
		if ok := table.finish(&out); ok != c.ok || !strings.Contains(out.String(), c.says) {
			t.Errorf("%d rows: ok is %v, want %v with %q in\n%s", len(c.rows), ok, c.ok, c.says, &out)
		}
		file := filepath.Join(t.TempDir(), "results")
		wrote := table.write(file, "the command")
		text, err := os.ReadFile(file)
		if slices.Contains(c.rows, other) {
			if wrote == nil || !strings.Contains(wrote.Error(), "it is Sunday") || err == nil {
				t.Errorf("write() = %v when a case was not run, and the file has %q", wrote, text)
			}
			continue
		}
		if wrote != nil {
			t.Fatal(wrote)
		}
		if err != nil || !strings.Contains(string(text), "`the command -seed 0`") || !strings.Contains(string(text), fmt.Sprintf("| %s | ", c.rows[0].name)) {
			t.Errorf("the file has %q, %v", text, err)
		}
	}
}

// TestMayWrite: the file of the long run is not overwritten by another one.
func TestMayWrite(t *testing.T) {
	for _, c := range []struct {
		o     options
		cases []string
		ok    bool
	}{
		{options{results: "file", part: 1}, nil, true},
		{options{part: 0.1, short: true}, []string{"kill"}, true},
		{options{results: "file", part: 1}, []string{"kill"}, false},
		{options{results: "file", part: 0.1}, nil, false},
		{options{results: "file", part: 1, short: true}, nil, false},
	} {
		if err := c.o.mayWrite(c.cases); (err == nil) != c.ok {
			t.Errorf("%+v with the cases %q: %v, want ok %v", c.o, c.cases, err, c.ok)
		}
	}
}

// TestLeft: programs that outlive their pool are found.
func TestLeft(t *testing.T) {
	e := &env{marker: t.TempDir()}
	environ, err := exec.NewEnviron([]string{marker + "=" + e.marker})
	if err != nil {
		t.Fatal(err)
	}
	cmd := osexec.Command("sleep", "1000")
	cmd.Env = environ.For(0, []byte("FDKIT=1\x00"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if left := e.left(); !slices.Equal(left, []int{cmd.Process.Pid}) {
		t.Errorf("left() = %v, want process %d", left, cmd.Process.Pid)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if left := e.left(); len(left) > 0 {
		t.Errorf("left() = %v when it has ended, want none", left)
	}
}
