//go:build linux

package cmd

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseTarget(t *testing.T) {
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0) // so it is not inherited
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, test := range []struct {
		operand string
		want    target
		ok      bool
	}{
		{"2", target{fd: 2}, true},
		{":2", target{fd: 2}, true},
		{":99999", target{fd: 99999}, true},
		{"2:", target{pid: 2, whole: true}, true},
		{"99999", target{pid: 99999, whole: true}, true},
		{"12:0", target{pid: 12}, true},
		{"12:34", target{pid: 12, fd: 34}, true},
		{"", target{}, false},
		{":", target{}, false},
		{"0:", target{}, false},
		{"0:3", target{}, false},
		{"-1", target{}, false},
		{"+1", target{}, false},
		{"1_0", target{}, false},
		{"0x1", target{}, false},
		{"1:2:3", target{}, false},
		{"1:-2", target{}, false},
		{" 1", target{}, false},
		{"stdin", target{}, false},
		{"99999999999999999999", target{}, false},
	} {
		got, err := parseTarget(test.operand)
		if (err == nil) != test.ok || test.ok && got != test.want {
			t.Errorf("parseTarget(%q) = %+v, %v; want %+v, %t", test.operand, got, err, test.want, test.ok)
		}
		if err != nil && exitStatus(err) != exitUsage {
			t.Errorf("parseTarget(%q): exit status %d; want %d", test.operand, exitStatus(err), exitUsage)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, operand := range []string{"1", ":1", "1:", "1:2", "::", "0"} {
		f.Add(operand)
	}
	f.Fuzz(func(t *testing.T, operand string) {
		got, err := parseTarget(operand)
		if err == nil && (got.pid < 0 || got.fd < 0 || got.pid == 0 && got.whole) {
			t.Errorf("parseTarget(%q) = %+v", operand, got)
		}
	})
}
