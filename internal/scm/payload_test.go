//go:build linux

package scm

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

type variable struct{ name, value string }

func collect(payload string) (all []variable) {
	for name, value := range Vars([]byte(payload)) {
		all = append(all, variable{name, value})
	}
	return all
}

func TestVars(t *testing.T) {
	tests := []struct {
		about, payload string
		want           []variable
	}{
		{"nothing", "", nil},
		{"one byte of a naive sender", "x", nil},
		{"text of a naive sender", "hello, world", nil},
		{"the beginning alone", "FDKIT=1\x00", nil},
		{"the beginning, cut", "FDKIT=1", nil},
		{"another version", "FDKIT=2\x00A=b\x00", nil},
		{"a longer version", "FDKIT=10\x00A=b\x00", nil},
		{"no beginning", "A=b\x00FDKIT=1\x00", nil},
		{"one", "FDKIT=1\x00A=b\x00", []variable{{"A", "b"}}},
		{"order is kept", "FDKIT=1\x00B=2\x00A=1\x00", []variable{{"B", "2"}, {"A", "1"}}},
		{"both of the same name", "FDKIT=1\x00A=1\x00A=2\x00", []variable{{"A", "1"}, {"A", "2"}}},
		{"an empty value", "FDKIT=1\x00A=\x00", []variable{{"A", ""}}},
		{"= in the value", "FDKIT=1\x00A=b=c\x00", []variable{{"A", "b=c"}}},
		{"a newline in the value", "FDKIT=1\x00A=b\nc\x00", []variable{{"A", "b\nc"}}},
		{"cut in the middle", "FDKIT=1\x00A=b\x00LONG=val", []variable{{"A", "b"}}},
		{"cut before the NUL", "FDKIT=1\x00A=b", nil},
		{"no =", "FDKIT=1\x00A\x00B=c\x00", []variable{{"B", "c"}}},
		{"no name", "FDKIT=1\x00=x\x00B=c\x00", []variable{{"B", "c"}}},
		{"a name that is none", "FDKIT=1\x00A B=x\x001A=x\x00BASH_FUNC_a%%=x\x00B=c\x00", []variable{{"B", "c"}}},
		{"NULs between", "FDKIT=1\x00\x00\x00B=c\x00\x00", []variable{{"B", "c"}}},
	}
	for _, test := range tests {
		t.Run(test.about, func(t *testing.T) {
			if got := collect(test.payload); !slices.Equal(got, test.want) {
				t.Errorf("Vars(%q) yields %q, want %q", test.payload, got, test.want)
			}
		})
	}
}

func TestVarsStopsEarly(t *testing.T) {
	for name := range Vars([]byte("FDKIT=1\x00A=1\x00B=2\x00")) {
		if name != "A" {
			t.Fatalf("Vars yields %s after its loop was left, want A only", name)
		}
		break
	}
}

func TestVar(t *testing.T) {
	const payload = "FDKIT=1\x00A=1\x00EMPTY=\x00A=2\x00"
	for _, test := range []struct {
		name, value string
		found       bool
	}{
		{"A", "1", true},
		{"EMPTY", "", true},
		{"B", "", false},
		{"a", "", false},
		{"", "", false},
		{"FDKIT", "", false},
	} {
		if value, found := Var([]byte(payload), test.name); value != test.value || found != test.found {
			t.Errorf("Var(%q, %q) = %q, %v; want %q, %v", payload, test.name, value, found, test.value, test.found)
		}
	}
}

func TestAppendVar(t *testing.T) {
	for _, test := range []struct{ name, value, want string }{
		{"A", "b", "A=b\x00"},
		{"A", "", "A=\x00"},
		{"A", "b=c", "A=b=c\x00"},
		{"A", "b\x00C=d", "A=b\x00"}, // no variable is smuggled in
		{"A", "\x00", "A=\x00"},
	} {
		before := "FDKIT=1\x00"
		got := string(AppendVar([]byte(before), test.name, test.value))
		if got != before+test.want {
			t.Errorf("AppendVar(%q, %q, %q) = %q, want %q", before, test.name, test.value, got, before+test.want)
		}
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"A": true, "_": true, "a1_": true, "TCPREMOTEIP": true, "_1": true,
		"": false, "1": false, "1A": false, "A B": false, "A-B": false, "A.B": false, "A\n": false,
		"A\x00": false, "Ä": false, "BASH_FUNC_f%%": false, "A=": false,
	} {
		if got := ValidName(name); got != want {
			t.Errorf("ValidName(%q) = %v, want %v", name, got, want)
		}
	}
}

// FuzzVars feeds Vars with what anybody may send: whatever it yields can be
// written again, and reads the same.
func FuzzVars(f *testing.F) {
	for _, seed := range []string{
		"", "x", Begin, Begin + "A=b\x00", Begin + "A=b", Begin + "A=\x00=b\x00\x00A", "FDKIT=2\x00A=b\x00",
		Begin + "PROTO=TCP\x00TCPLOCALIP=127.0.0.1\x00TCPLOCALPORT=80\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		first := collect(string(payload))
		again := []byte(Begin)
		for _, v := range first {
			if !ValidName(v.name) || strings.Contains(v.value, "\x00") {
				t.Errorf("Vars(%q) yields %q, which is no variable", payload, v)
			}
			again = AppendVar(again, v.name, v.value)
		}
		if second := collect(string(again)); !slices.Equal(first, second) {
			t.Errorf("Vars(%q) yields %q, written again it yields %q", payload, first, second)
		}
		if len(first) > 0 && !bytes.HasPrefix(payload, []byte(Begin)) {
			t.Errorf("Vars(%q) yields %q, want nothing from a foreign sender's payload", payload, first)
		}
	})
}

// FuzzAppendVar writes any two variables: no value becomes a part of another.
func FuzzAppendVar(f *testing.F) {
	f.Add("A", "b", "c")
	f.Add("_", "x\x00PATH=/tmp", "\x00")
	f.Add("TCPREMOTEINFO", "=\n", "")
	f.Fuzz(func(t *testing.T, name, one, two string) {
		if !ValidName(name) {
			t.Skip()
		}
		payload := AppendVar(AppendVar([]byte(Begin), name, one), name+"_", two)
		cutOne, _, _ := strings.Cut(one, "\x00")
		cutTwo, _, _ := strings.Cut(two, "\x00")
		want := fmt.Sprintf("%q", []variable{{name, cutOne}, {name + "_", cutTwo}})
		if got := fmt.Sprintf("%q", collect(string(payload))); got != want {
			t.Errorf("AppendVar of %q and %q yields %s, want %s", one, two, got, want)
		}
	})
}
