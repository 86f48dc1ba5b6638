//go:build linux

package proto

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode"

	"fdkit/internal/scm"
)

// piece is what came at once.
type piece struct {
	from Direction
	data string
	fds  int
}

func client(data string, fds int) piece { return piece{FromClient, data, fds} }
func server(data string, fds int) piece { return piece{FromServer, data, fds} }

func decode(d Decoder, pieces []piece) (lines []string) {
	for _, p := range pieces {
		lines = append(lines, d.Decode(p.from, []byte(p.data), p.fds)...)
	}
	return lines
}

// words packs words and strings as the host has them.
func words(values ...any) string {
	var b []byte
	for _, v := range values {
		switch v := v.(type) {
		case int:
			b = binary.NativeEndian.AppendUint32(b, uint32(v))
		case uint16:
			b = binary.NativeEndian.AppendUint16(b, v)
		case string:
			b = append(b, v...)
		}
	}
	return string(b)
}

func TestDecoders(t *testing.T) {
	const getfd = `{"execute":"getfd","arguments":{"fdname":"web"}}`
	tests := []struct {
		name   string
		pieces []piece
		want   []string
	}{
		{"fdkit", []piece{client(scm.Begin+"PROTO=TCP\x00X=a\nb\x00", 1)}, []string{"FDKIT=1", "PROTO=TCP", `X=a\nb`}},
		{"fdkit", []piece{client("FDKI", 1), client("T=1\x00A=", 0), client("b\x00", 0)}, []string{"FDKIT=1", "A=b"}},
		{"fdkit", []piece{client(scm.Begin+"A=b", 1), client(scm.Begin, 1)}, []string{"FDKIT=1", "cut off: A=b", "FDKIT=1"}},
		{"fdkit", []piece{client("x\x1b", 1)}, []string{`no variables: x\x1b`}},

		{"openssh", []piece{server("\x00", 1)}, []string{"a connection"}},
		{"util-linux", []piece{client(" ", 1)}, []string{"a descriptor"}},
		{"util-linux", []piece{client("ab", 0)}, []string{"2 bytes with 0 descriptors, not one with one: ab"}},

		{"python-multiprocessing", []piece{client("\x01", 1), server("\x03", 3)}, []string{"1 descriptor", "3 descriptors"}},
		{"python-multiprocessing", []piece{client("\x02", 1)}, []string{`1 byte with 1 descriptor, not one byte that counts them: \x02`}},

		{
			"qmp",
			[]piece{server(`{"QMP": {}}`+"\r\n", 0), client(getfd, 1), server("{\"return\"", 0), server(": {}}\r\n", 0)},
			[]string{`{"QMP":{}}`, getfd + ", with 1 descriptor", `{"return":{}}`},
		},
		{"qmp", []piece{client("{\n \"a\": [1,\n \"}\\\"]\"]\n}{}", 0)}, []string{`{"a":[1,"}\"]"]}`, "{}"}},
		{"qmp", []piece{client("hello \"you\n}{}\n[\"\u202e\"]", 0)}, []string{`no JSON: hello "you`, "no JSON: }", "{}", `["\u202e"]`}},
		{
			"node",
			[]piece{server("\"text\"\n4", 0), server("2\n{\"cmd\"", 1), server(`:"NODE_HANDLE"}`+"\n", 0)},
			[]string{`"text"`, "42", `{"cmd":"NODE_HANDLE"}, with 1 descriptor`},
		},
		{"node", []piece{client("1\n{}\n", 2)}, []string{"1", "{}, with 2 descriptors"}},

		// Both headers are composed as imsg.h has them.
		{"imsg", []piece{client(words(7, uint16(18), uint16(0), -1, 42, "hi"), 0)}, []string{"type 7, 2 bytes, peerid 4294967295, pid 42"}},
		{"imsg", []piece{client(words(7, uint16(16), uint16(1), 8, 42), 1)}, []string{"type 7, 0 bytes, peerid 8, pid 42, with a descriptor"}},
		{"imsg", []piece{server(words(7, 16|1<<31, 8, 42), 1)}, []string{"type 7, 0 bytes, peerid 8, pid 42, with a descriptor"}},
		{"imsg", []piece{server(words(7, 16384+4, 8, 42, strings.Repeat("x", 16372)), 1)}, []string{"type 7, 16372 bytes, peerid 8, pid 42"}},
		{"imsg", []piece{server(words(7, 16|1<<31, 8, 42), 0)}, []string{"type 7, 0 bytes, peerid 8, pid 42, with a descriptor that has not come"}},
		{
			"imsg",
			[]piece{client(words(7, uint16(15), uint16(0), 8, 42), 0), client(words(7, 16, 8, 42), 0), server(words(7, 16, 8, 42), 0)},
			[]string{`no message of imsg: \a\x00\x00\x00\x0f\x00\x00\x00\b\x00\x00\x00*\x00\x00\x00; what follows is not explained`, "type 7, 0 bytes, peerid 8, pid 42"},
		},

		// What the recordings do not have. wl_registry.bind of a keyboard is no real one.
		{
			"wayland",
			[]piece{client(words(1, 12<<16|1, 2), 0), client(words(2, 40<<16, 1, 12, "wl_keyboard\x00", 1, 9, 0)[:40], 0), server(words(9, 20<<16, 1, 64, 0)[:20], 1)},
			[]string{"wl_display@1.get_registry(new id wl_registry@2)", `wl_registry@2.bind(1, "wl_keyboard", 1, new id [unknown]@9), not of that form`, "wl_keyboard@9.keymap(1, fd, 64), not of that form"},
		},
		{"wayland", []piece{server(words(1, 12<<16|1, 2), 0), server(words(1, 20<<16, 0, 0, 0), 0)}, []string{"wl_display@1.delete_id(2)", "wl_display@1.error(nil, 0, nil)"}},
		{"wayland", []piece{server(words(5, 16<<16|3, 0, 0), 0)}, []string{"[unknown]@5 opcode 3, 8 bytes"}},
		{
			"wayland",
			[]piece{client(words(1, 12<<16|1, 2), 0), client(words(2, 36<<16, 1, 7, "wl_shm\x00\x00", 1, 3, 4), 0), client(words(3, 16<<16, 4, 4096), 0)},
			[]string{"wl_display@1.get_registry(new id wl_registry@2)", `wl_registry@2.bind(1, "wl_shm", 1, new id [unknown]@3), not of that form`, "wl_shm@3.create_pool(new id wl_shm_pool@4, fd that has not come, 4096)"},
		},
		{"wayland", []piece{client(words(1, 8<<16|1), 0)}, []string{"wl_display@1.get_registry(), not of that form"}},
		{"wayland", []piece{client(words(1, 7<<16), 0), client(words(1, 8<<16), 0)}, []string{`no message of Wayland: \x01\x00\x00\x00\x00\x00\a\x00; what follows is not explained`}},
	}
	for _, test := range tests {
		d, err := Find(test.name)
		if err != nil {
			t.Fatal(err)
		}
		if got := decode(d.Decoder(), test.pieces); !slices.Equal(got, test.want) {
			t.Errorf("%s of %v:\n%s\nwant:\n%s", test.name, test.pieces, strings.Join(got, "\n"), strings.Join(test.want, "\n"))
		}
	}
}

// recording reads a file of testdata: what came at once in a line, > from the client or
// < from the server, the descriptors' number, the bytes; and in lines after = what is
// said.
func recording(t testing.TB, file string) (pieces []piece, want []string) {
	text, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		var fds int
		var digits string
		switch line[0] {
		case '#':
			continue
		case '=':
			want = append(want, strings.TrimPrefix(line, "= "))
			continue
		}
		if _, err := fmt.Sscan(line[1:], &fds, &digits); err != nil {
			t.Fatalf("%s: %q: %v", file, line, err)
		}
		data, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatalf("%s: %q: %v", file, line, err)
		}
		pieces = append(pieces, piece{line[0] == '<', string(data), fds})
	}
	return pieces, want
}

// Real programs, and the same bytes in other pieces.
func TestDecodeRecorded(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the recordings are of a little-endian machine")
	}
	for file, d := range map[string]*Dialect{"wayland-simple-shm.txt": wayland, "imsg-tmux.txt": imsg} {
		pieces, want := recording(t, file)
		if got := decode(d.Decoder(), pieces); !slices.Equal(got, want) {
			t.Errorf("%s:\n%s\nwant:\n%s", file, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		var bytes []piece
		for _, p := range pieces {
			for i := range len(p.data) {
				bytes = append(bytes, piece{p.from, p.data[i : i+1], p.fds})
				p.fds = 0
			}
		}
		if got := decode(d.Decoder(), bytes); !slices.Equal(got, want) {
			t.Errorf("%s, byte by byte:\n%s\nwant:\n%s", file, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// What has no end is not kept without one.
func TestDecodeBounded(t *testing.T) {
	for _, test := range []struct {
		name string
		d    Decoder
		s    func(Decoder) *stream
		data string
	}{
		{"fdkit", &fdkitDecoder{}, func(d Decoder) *stream { return &d.(*fdkitDecoder).client }, scm.Begin},
		{"node", &jsonDecoder{}, func(d Decoder) *stream { return &d.(*jsonDecoder).client }, "["},
		{"imsg", &imsgDecoder{}, func(d Decoder) *stream { return &d.(*imsgDecoder).client }, words(7, decodeLimit, 8, 42)},
	} {
		test.d.Decode(FromClient, []byte(test.data), 0)
		told := 0
		more := []byte(strings.Repeat("x", 100_000))
		for range 30 {
			told += len(test.d.Decode(FromClient, more, 1))
			if kept := len(test.s(test.d).kept); kept > decodeLimit {
				t.Errorf("%s keeps %d bytes, want at most %d", test.name, kept, decodeLimit)
			}
		}
		if told == 0 {
			t.Errorf("%s tells nothing of 3 MB without an end, want that there is none", test.name)
		}
	}
	d := wayland.Decoder().(*waylandDecoder)
	d.Decode(FromClient, []byte(words(1, 12<<16|1, 2)), 0)
	for id := range 100_000 {
		d.Decode(FromClient, []byte(words(2, 28<<16, 1, 4, "abc\x00", 1, id+3)), 0)
	}
	if len(d.objects) > waylandObjects {
		t.Errorf("wayland remembers %d objects, want at most %d", len(d.objects), waylandObjects)
	}
}

// Whatever comes, a decoder's lines are printable, and it does not matter in which pieces
// a stream comes.
func FuzzDecoders(f *testing.F) {
	for _, file := range []string{"wayland-simple-shm.txt", "imsg-tmux.txt"} {
		pieces, _ := recording(f, file)
		for _, p := range pieces {
			f.Add([]byte(p.data), byte(p.fds), uint16(5))
		}
	}
	f.Add([]byte(scm.Begin+"A=b\x00"), byte(1), uint16(9))
	f.Add([]byte("{\"execute\":\"getfd\"}\r\n[\"\\\"]\"]x\n"), byte(1), uint16(19))
	f.Add([]byte(words(7, 16|1<<31, 8, 42)), byte(1), uint16(3))
	f.Add([]byte(words(1, 12<<16|1, 2, 2, 32<<16, 1, 7, "wl_shm\x00\x00", 1, 3, 3, 16<<16, 4, 5)), byte(1), uint16(12))
	f.Fuzz(func(t *testing.T, data []byte, fds byte, at uint16) {
		i := min(int(at), len(data))
		for _, d := range All() {
			if d.Decoder == nil {
				continue
			}
			whole := decode(d.Decoder(), []piece{client(string(data), int(fds)), server(string(data), 0)})
			halves := decode(d.Decoder(), []piece{client(string(data[:i]), int(fds)), client(string(data[i:]), 0)})
			for _, line := range slices.Concat(whole, halves) {
				if strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
					t.Errorf("%s of %q and %q: the line %q is not printable", d.Name, data[:i], data[i:], line)
				}
			}
			if d != imsg && d != wayland && (d != qmp || fds > 0) {
				continue // it depends on the pieces what is said, or what has the descriptors
			}
			once := decode(d.Decoder(), []piece{client(string(data), int(fds))})
			if !slices.EqualFunc(once, halves, func(a, b string) bool {
				why, _, _ := strings.Cut(a, ":") // and then what was there of it
				return a == b || strings.HasSuffix(a, "not explained") && strings.HasPrefix(b, why)
			}) {
				t.Errorf("%s of %q = %q, in two pieces %q", d.Name, data, once, halves)
			}
		}
	})
}
