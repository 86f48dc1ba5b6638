//go:build linux

package cmd

import (
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"fdkit/exec"
	"fdkit/internal/hint"
)

func TestSplitAddresses(t *testing.T) {
	for _, test := range []struct{ operands, addresses, program string }{
		{":80", ":80", ""},
		{":80 cat", ":80", "cat"},
		{":80 cat -n :81", ":80", "cat -n :81"},
		{":80 127.0.0.1:81 [::1]:82 cat", ":80 127.0.0.1:81 [::1]:82", "cat"},
		{"unix:/run/a unix:@b fd:3 systemd: tcp4:a:1 ./server", "unix:/run/a unix:@b fd:3 systemd: tcp4:a:1", "./server"},
		{":80 ./a:b", ":80", "./a:b"},
		{":80 /opt/a:b c", ":80", "/opt/a:b c"},
		{":80 -- weird:name x", ":80", "weird:name x"},
		{":80 -- cat", ":80", "cat"},
		{":80 -- -x", ":80", "-x"},
		{":80 -- -- x", ":80", "-- x"},
		{":80 cat -- x", ":80", "cat -- x"},
		{":80 -", ":80", "-"},
		{":80 server /run/a.sock", ":80", "server /run/a.sock"},
	} {
		addresses, program, err := splitAddresses(strings.Fields(test.operands))
		if err != nil || !slices.Equal(addresses, strings.Fields(test.addresses)) || !slices.Equal(program, strings.Fields(test.program)) {
			t.Errorf("splitAddresses(%s) = %q, %q, %v; want %q, %q, nil", test.operands, addresses, program, err, test.addresses, test.program)
		}
		if (program == nil) != (test.program == "") {
			t.Errorf("splitAddresses(%s): the program is %#v", test.operands, program)
		}
	}
}

func TestSplitAddressesErrors(t *testing.T) {
	t.Chdir(t.TempDir())
	socket, err := net.Listen("unix", "live")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	for _, test := range []struct {
		operands   []string
		want, hint string
	}{
		{nil, "an address is missing", ":8080"},
		{[]string{""}, "is no address", "HOST:PORT"},
		{[]string{"cat"}, "an address is missing", ":8080"},
		{[]string{"--", "cat"}, "an address is missing", ":8080"},
		{[]string{"8080", "cat"}, "8080 is no address", "written :8080"},
		{[]string{"0", "8089", "cat"}, "0 is no address", "port 8089 of all addresses is written :8089"},
		{[]string{"127.0.0.1", "8089", "cat"}, "127.0.0.1 is no address", "written 127.0.0.1:8089"},
		{[]string{"0", "x", "cat"}, "0 is no address", "written :0"},
		{[]string{"localhost", "cat"}, "localhost is no address", "localhost:PORT"},
		{[]string{"127.0.0.1"}, "127.0.0.1 is no address", "127.0.0.1:PORT"},
		{[]string{"@name", "cat"}, "@name is no address", "unix:@name"},
		{[]string{"/run/a.sock", "cat"}, "/run/a.sock is no address", "unix:/run/a.sock"},
		{[]string{"./live", "cat"}, "./live is no address", "unix:./live"},
		{[]string{"-x", "cat"}, "option -x", "options come before"},
		{[]string{":80", "--backlog", "3", "cat"}, "option --backlog", "options come before"},
		{[]string{":80", "-v:"}, "option -v:", "options come before"},
		{[]string{":80", "--"}, "a program is missing after --", ""},
		{[]string{":80", ""}, "the program's name is empty", ""},
		{[]string{":80", "--", ""}, "the program's name is empty", ""},
	} {
		addresses, program, err := splitAddresses(test.operands)
		if err == nil || !strings.Contains(err.Error(), test.want) || exitStatus(err) != exitUsage {
			t.Errorf("splitAddresses(%q) = %q, %q, %v; want a usage error that says %q", test.operands, addresses, program, err, test.want)
		}
		if got := hint.Of(err); !strings.Contains(got, test.hint) || test.hint == "" && got != "" {
			t.Errorf("splitAddresses(%q) has the hint %q, want one that says %q", test.operands, got, test.hint)
		}
	}
}

func TestParseAddressesErrors(t *testing.T) {
	for operands, want := range map[string]string{
		"0 8089":         "port 8089 of all addresses is written :8089",
		"localhost 8089": "written localhost:8089",
		"8089":           "written :8089",
		"0":              "written :PORT",
		"0 http":         "written :PORT",
		":80 8089":       "written :8089",
	} {
		_, err := parseAddresses(strings.Fields(operands))
		if got := hint.Of(err); exitStatus(err) != exitUsage || !strings.HasSuffix(got, want) {
			t.Errorf("parseAddresses(%s) = %v with the hint %q; want a usage error, and %q at the hint's end", operands, err, got, want)
		}
	}
}

func TestProgramError(t *testing.T) {
	missing := func() error { return &exec.NotRunnableError{NotFound: true, Err: os.ErrNotExist} }
	for name, want := range map[string]string{
		"8081": "written :8081", "localhost": "localhost:PORT", "a.sock": "unix:a.sock", "server": "",
	} {
		got := hint.Of(programError(missing(), name))
		if !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("programError of %s has the hint %q, want one that says %q", name, got, want)
		}
	}
}

// FuzzSplitAddresses splits any operands: none is lost, but for the -- between.
func FuzzSplitAddresses(f *testing.F) {
	f.Add(":80 cat -n")
	f.Add(":80 -- weird:name")
	f.Add("unix:/a ./b:c --")
	f.Fuzz(func(t *testing.T, text string) {
		operands := strings.Split(text, " ")
		addresses, program, err := splitAddresses(operands)
		if err != nil {
			return
		}
		rest := operands[len(addresses):]
		if !slices.Equal(addresses, operands[:len(addresses)]) ||
			!slices.Equal(program, rest) && !(len(rest) > 0 && rest[0] == "--" && slices.Equal(program, rest[1:])) {
			t.Errorf("splitAddresses(%q) = %q, %q", operands, addresses, program)
		}
	})
}
