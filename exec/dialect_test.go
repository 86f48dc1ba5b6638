//go:build linux

package exec_test

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/exec"
	"fdkit/internal/fdtest"
)

func dialectsNamed(t *testing.T, names string) (found []*exec.Dialect) {
	t.Helper()
	for name := range strings.SplitSeq(names, ",") {
		d, err := exec.FindDialect(name)
		if err != nil {
			t.Fatalf("FindDialect(%q) = %v, want nil", name, err)
		}
		found = append(found, d)
	}
	return found
}

const (
	payload4 = begin + "PROTO=TCP|TCPLOCALIP=192.0.2.1|TCPLOCALPORT=80|TCPREMOTEIP=192.0.2.7|TCPREMOTEPORT=5000|"
	payload6 = begin + "PROTO=TCP|TCPLOCALIP=2001:db8::1|TCPLOCALPORT=80|TCPREMOTEIP=::1|TCPREMOTEPORT=5000|"
	// The interface with number 1 is lo in every network namespace.
	linkLocal   = begin + "PROTO=TCP|TCPLOCALIP=fe80::1%1|TCPLOCALPORT=80|TCPREMOTEIP=fe80::2%1|TCPREMOTEPORT=5000|"
	noInterface = begin + "PROTO=TCP|TCPLOCALIP=fe80::1%99999999|TCPREMOTEIP=fe80::2%99999999|"
	named       = begin + "PROTO=TCP|TCPLOCALIP=192.0.2.1|TCPREMOTEIP=192.0.2.7|TCPREMOTEHOST=client.example|TCPLOCALHOST=here.example|"
	named6      = begin + "PROTO=TCP|TCPLOCALIP=::1|TCPREMOTEIP=::1|TCPREMOTEHOST=client.example|TCPLOCALHOST=here.example|"
	mapped      = begin + "PROTO=TCP|TCPLOCALIP=::ffff:192.0.2.1|TCPREMOTEIP=::ffff:192.0.2.7|"
	localOnly   = begin + "PROTO=TCP|TCPLOCALIP=::1|TCPLOCALPORT=80|"
	unixBound   = begin + "PROTO=UNIX|UNIXLOCALPATH=/run/a|UNIXREMOTEPATH=/run/b|UNIXREMOTEEUID=0|"
	unixUnnamed = begin + "PROTO=UNIX|UNIXLOCALPATH=@a@b|UNIXREMOTEEUID=0|"
	odd         = begin + "PROTO=TCP|TCPLOCALIP=here|TCPREMOTEIP=there%x|TCPREMOTEIP=192.0.2.7|"
)

// The wants are what the other programs set, as far as a kernel can be made to
// show it; testdata/script/dialects.txtar of package cmd runs them.
func TestDialects(t *testing.T) {
	a, _ := fdtest.Pair(t, unix.SOCK_STREAM)
	cookie, err := unix.GetsockoptUint64(a.FD, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		t.Fatal(err)
	}
	soCookie := "SO_COOKIE=" + strconv.FormatUint(cookie, 10)
	for _, test := range []struct {
		dialects, payload string
		want              []string // besides what comes with the payload
	}{
		{"ucspi", payload4, nil},
		{"ncat", payload4, []string{"NCAT_REMOTE_ADDR=192.0.2.7", "NCAT_REMOTE_PORT=5000", "NCAT_LOCAL_ADDR=192.0.2.1", "NCAT_LOCAL_PORT=80", "NCAT_PROTO=TCP"}},
		{"ncat", payload6, []string{"NCAT_REMOTE_ADDR=::1", "NCAT_REMOTE_PORT=5000", "NCAT_LOCAL_ADDR=2001:db8::1", "NCAT_LOCAL_PORT=80", "NCAT_PROTO=TCP"}},
		{"ncat", linkLocal, []string{"NCAT_REMOTE_ADDR=fe80::2%lo", "NCAT_REMOTE_PORT=5000", "NCAT_LOCAL_ADDR=fe80::1%lo", "NCAT_LOCAL_PORT=80", "NCAT_PROTO=TCP"}},
		{"ncat", noInterface, []string{"NCAT_REMOTE_ADDR=fe80::2%99999999", "NCAT_LOCAL_ADDR=fe80::1%99999999", "NCAT_PROTO=TCP"}},
		{"ncat", unixBound, []string{"NCAT_REMOTE_ADDR=localhost", "NCAT_LOCAL_ADDR=localhost", "NCAT_PROTO=TCP"}},
		{"ncat", localOnly, []string{"NCAT_LOCAL_ADDR=::1", "NCAT_LOCAL_PORT=80", "NCAT_PROTO=TCP"}},
		{"ncat", begin, nil},
		{"ncat", odd, []string{"NCAT_REMOTE_ADDR=there%x", "NCAT_LOCAL_ADDR=here", "NCAT_PROTO=TCP"}},

		{"socat", payload4, []string{"SOCAT_PEERADDR=192.0.2.7", "SOCAT_PEERPORT=5000", "SOCAT_SOCKADDR=192.0.2.1", "SOCAT_SOCKPORT=80"}},
		{"socat", payload6, []string{"SOCAT_PEERADDR=[0000:0000:0000:0000:0000:0000:0000:0001]", "SOCAT_PEERPORT=5000", "SOCAT_SOCKADDR=[2001:0db8:0000:0000:0000:0000:0000:0001]", "SOCAT_SOCKPORT=80"}},
		{"socat", linkLocal, []string{"SOCAT_PEERADDR=[fe80:0000:0000:0000:0000:0000:0000:0002]", "SOCAT_PEERPORT=5000", "SOCAT_SOCKADDR=[fe80:0000:0000:0000:0000:0000:0000:0001]", "SOCAT_SOCKPORT=80"}},
		{"socat", unixBound, []string{"SOCAT_PEERADDR=/run/b", "SOCAT_SOCKADDR=/run/a"}},
		{"socat", unixUnnamed, []string{`SOCAT_SOCKADDR=\0a@b`}},
		{"socat", odd, []string{"SOCAT_PEERADDR=there%x", "SOCAT_SOCKADDR=here"}},

		{"xinetd", payload4, []string{"REMOTE_HOST=192.0.2.7"}},
		{"xinetd", named, []string{"REMOTE_HOST=192.0.2.7"}},
		{"xinetd", linkLocal, []string{"REMOTE_HOST=fe80::2%lo"}},
		{"xinetd", unixBound, nil},

		{"systemd", payload4, []string{"REMOTE_ADDR=192.0.2.7", "REMOTE_PORT=5000", soCookie}},
		{"systemd", linkLocal, []string{"REMOTE_ADDR=fe80::2%lo", "REMOTE_PORT=5000", soCookie}},
		{"systemd", unixBound, []string{"REMOTE_ADDR=/run/b", soCookie}},
		{"systemd", begin + "PROTO=UNIX|UNIXREMOTEPATH=relative|", []string{soCookie}},
		{"systemd", begin + "PROTO=UNIX|UNIXREMOTEPATH=@b|", []string{"REMOTE_ADDR=@b", soCookie}},
		{"systemd", unixUnnamed, []string{soCookie}},

		{"cgi", payload4, []string{"REMOTE_ADDR=192.0.2.7", "REMOTE_HOST=192.0.2.7", "REMOTE_PORT=5000", "SERVER_ADDR=192.0.2.1", "SERVER_PORT=80"}},
		{"cgi", named, []string{"REMOTE_ADDR=192.0.2.7", "REMOTE_HOST=client.example", "SERVER_ADDR=192.0.2.1"}},
		{"cgi", unixBound, nil},

		{"tcp6", payload4, []string{"PROTO=TCP"}},
		{"tcp6", mapped, []string{"PROTO=TCP"}},
		{"tcp6", payload6, []string{"PROTO=TCP6", "TCP6LOCALIP=2001:db8::1", "TCP6LOCALPORT=80", "TCP6REMOTEIP=::1", "TCP6REMOTEPORT=5000"}},
		{"tcp6", linkLocal, []string{"PROTO=TCP6", "TCP6LOCALIP=fe80::1", "TCP6LOCALPORT=80", "TCP6REMOTEIP=fe80::2", "TCP6REMOTEPORT=5000", "TCP6INTERFACE=lo"}},
		{"tcp6", named6, []string{"PROTO=TCP6", "TCP6LOCALIP=::1", "TCP6LOCALHOST=here.example", "TCP6REMOTEIP=::1", "TCP6REMOTEHOST=client.example"}},
		{"tcp6", localOnly, []string{"PROTO=TCP6", "TCP6LOCALIP=::1", "TCP6LOCALPORT=80"}},
		{"tcp6", unixBound, []string{"PROTO=UNIX"}},
		{"tcp6", begin, nil},

		// The later of two.
		{"cgi,xinetd", named, []string{"REMOTE_ADDR=192.0.2.7", "SERVER_ADDR=192.0.2.1", "REMOTE_HOST=192.0.2.7"}},
		{"xinetd,ucspi,cgi", named, []string{"REMOTE_ADDR=192.0.2.7", "REMOTE_HOST=client.example", "SERVER_ADDR=192.0.2.1"}},
		{"cgi,cgi", named, []string{"REMOTE_ADDR=192.0.2.7", "REMOTE_HOST=client.example", "SERVER_ADDR=192.0.2.1"}},
	} {
		t.Run(test.dialects, func(t *testing.T) {
			e, err := exec.NewEnviron([]string{"A=1"})
			if err != nil {
				t.Fatal(err)
			}
			chosen := dialectsNamed(t, test.dialects)
			e.AddDialects(chosen...)
			has := func(v string) bool {
				name, _, _ := strings.Cut(v, "=")
				return slices.ContainsFunc(chosen, func(d *exec.Dialect) bool { return d.Has(name) })
			}
			plain, err := exec.NewEnviron([]string{"A=1"})
			if err != nil {
				t.Fatal(err)
			}
			want := append(slices.DeleteFunc(plain.For(a.FD, payload(test.payload)), has), test.want...)
			for range 2 { // For leaves the Environ as it is
				if got := e.For(a.FD, payload(test.payload)); !slices.Equal(got, want) {
					t.Errorf("For(%q) with dialect %s:\n got %q\nwant %q", test.payload, test.dialects, got, want)
				}
			}
		})
	}
}

// The variables of a dialect come from the connection, whatever a message, the base
// or the names to accept say.
func TestDialectVariablesComeFromNowhereElse(t *testing.T) {
	r, _ := fdtest.Pipe(t)
	stale := []string{
		"NCAT_REMOTE_ADDR=old", "NCAT_PROTO=old", "SOCAT_PID=1", "SOCAT_PEERADDR=old", "SERVER_ADDR=old", "SO_COOKIE=old",
		"REMOTE_HOST=old", "TCP6REMOTEIP=old", "PROTO=old",
	}
	kept := []string{"SOCAT_DEFAULT_LISTEN_IP=6", "SERVER_ROOT=/x", "NCAT_OTHER=1"} // of no dialect
	e, err := exec.NewEnviron(append(stale, kept...), "NCAT_REMOTE_ADDR", "SO_COOKIE", "SOCAT_PID")
	if err != nil {
		t.Fatal(err)
	}
	e.AddDialects(exec.Dialects()...)
	message := begin + "REMOTE_ADDR=192.0.2.9|REMOTE_HOST=evil|NCAT_REMOTE_ADDR=evil|SO_COOKIE=1|SOCAT_PID=2|TCP6REMOTEIP=::2|SERVER_ADDR=evil|"
	if got := e.For(r.FD, payload(message)); !slices.Equal(got, kept) {
		t.Errorf("For(%q) with stale %q:\n got %q\nwant %q", message, stale, got, kept)
	}
	message += "TCPREMOTEIP=192.0.2.7|"
	got := e.For(r.FD, payload(message))
	for _, want := range []string{"NCAT_REMOTE_ADDR=192.0.2.7", "REMOTE_HOST=192.0.2.7", "REMOTE_ADDR=192.0.2.7", "SOCAT_PEERADDR=192.0.2.7"} {
		if !slices.Contains(got, want) {
			t.Errorf("For(%q) = %q, want %s in it", message, got, want)
		}
	}
	if slices.ContainsFunc(got, func(v string) bool { return strings.Contains(v, "evil") || strings.Contains(v, "old") }) {
		t.Errorf("For(%q) = %q, want nothing of the message or the base", message, got)
	}
}

// If nothing is said of the connection, dialects are made from what the socket says.
func TestDialectsAskTheSocket(t *testing.T) {
	a, _ := fdtest.Pair(t, unix.SOCK_STREAM)
	e, err := exec.NewEnviron(nil)
	if err != nil {
		t.Fatal(err)
	}
	e.AddDialects(dialectsNamed(t, "ncat")...)
	if got := e.For(a.FD, []byte("x")); !slices.Contains(got, "NCAT_REMOTE_ADDR=localhost") {
		t.Errorf(`For("x") = %q, want NCAT_REMOTE_ADDR=localhost in it`, got)
	}
}

func TestFindDialect(t *testing.T) {
	var names []string
	for _, d := range exec.Dialects() {
		names = append(names, d.Name)
	}
	if !slices.IsSorted(names) {
		t.Errorf("Dialects() are %q, want them sorted", names)
	}
	for _, name := range []string{"", "NCAT", "inetd", "ncat,socat"} {
		if _, err := exec.FindDialect(name); err == nil || !strings.Contains(err.Error(), strings.Join(names, ", ")) {
			t.Errorf("FindDialect(%q) = %v, want an error that lists %q", name, err, names)
		}
	}
}

func FuzzDialects(f *testing.F) {
	for _, seed := range []string{payload4, payload6, linkLocal, noInterface, named, mapped, unixBound, unixUnnamed, odd} {
		f.Add([]byte(strings.ReplaceAll(seed, "|", "\x00")))
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		f.Fatal(err)
	}
	defer null.Close()
	e, err := exec.NewEnviron(nil)
	if err != nil {
		f.Fatal(err)
	}
	e.AddDialects(exec.Dialects()...)
	f.Fuzz(func(t *testing.T, payload []byte) {
		seen := map[string]bool{}
		for _, v := range e.For(int(null.Fd()), payload) {
			name, value, ok := strings.Cut(v, "=")
			if !ok || seen[name] || strings.Contains(value, "\x00") {
				t.Errorf("For(%q) has %q, which is no variable or is there twice", payload, v)
			}
			seen[name] = true
		}
	})
}
