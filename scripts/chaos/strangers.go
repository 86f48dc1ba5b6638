//go:build linux

package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/scm"
)

// strangers has another user knock at the doors of a pipe's queue and of a named one, with
// wrong tokens, with noise and with silence, while clients are served and newcomers attach.
func strangers(e *env, r *row) {
	if os.Geteuid() != 0 {
		r.skipped = "only root can be another user"
		return
	}
	record := e.record(e.n(40_000, 400_000))
	read, write, err := os.Pipe()
	e.must(err)
	defer read.Close()
	cmd := exec.Command(e.fdkit, e.listenArgs()...)
	cmd.Stdout = write
	piped := exec.Command(e.fdkit, "pool", "--resident", "-n", "2", "--ready-timeout", "30s", e.server, record.path, "resident", "0s")
	piped.Stdin = read
	e.start(piped)
	_, address := e.listenAs(cmd)
	write.Close()
	door := "@chaos-" + fmt.Sprint(os.Getpid())
	e.startFdkit("pool", "--from", door, "--resident", "-n", "2", "--ready-timeout", "30s", e.server, record.path, "resident", "0s")
	_, other := e.listen("--to", door)
	doors := slices.DeleteFunc(abstractSockets(), func(name string) bool { return !strings.HasPrefix(name, "@fdkit-") && name != door })
	if len(doors) != 2 {
		e.must(fmt.Errorf("the doors are %q, want two", doors))
	}

	lasts := time.Duration(e.n(4, 60)) * time.Second
	attack := exec.Command(e.server, append([]string{record.path, "attack", lasts.String(), fmt.Sprint(e.random.Uint64())}, doors...)...)
	attack.SysProcAttr = asNobody()
	output, err := os.Create(e.at("attack"))
	e.must(err)
	defer output.Close()
	attack.Stdout = output
	attacker := e.start(attack)

	l := newLoad(address, record, 8)
	l.addresses = []string{address, other}
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.run(int64(len(l.fates)), func() bool { return !attacker.alive() || e.stop() })
	}()
	newcomers := 0
	for ; attacker.alive() && e.Err() == nil; newcomers++ {
		args := []string{"recv-exec"}
		if newcomers%2 == 0 {
			args = append(args, "--from", door)
		}
		cmd := exec.Command(e.fdkit, append(args, e.server, record.path, "one", "0s")...)
		if newcomers%2 == 1 {
			cmd.Stdin = read
		}
		p := e.start(cmd)
		e.await("a newcomer serves a connection", func() bool { return !p.alive() || !attacker.alive() })
		if p.alive() { // there may be no further connection for it
			break
		}
		if !p.cmd.ProcessState.Success() {
			e.must(fmt.Errorf("a newcomer has failed: %v: %s", p.cmd.ProcessState, p.read()))
		}
	}
	<-done
	l.count(r)
	var gained int64
	text, err := os.ReadFile(output.Name())
	e.must(err)
	if _, err := fmt.Sscanf(string(text), "%d knocks, %d descriptors", &r.faults, &gained); err != nil {
		e.must(fmt.Errorf("the stranger has told %q: %w: %s", text, err, attacker.read()))
	}
	r.note("%d newcomers attached meanwhile", newcomers)
	r.expectAllServed()
	r.expect(gained == 0, "0 descriptors gained", "%d", gained)
	r.expect(newcomers > 1, "newcomers attach", "%d", newcomers)
}

// abstractSockets returns the abstract names of the network namespace, proc_net(5).
func abstractSockets() (names []string) {
	file, err := os.Open("/proc/net/unix")
	if err != nil {
		return nil
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if i := strings.IndexByte(lines.Text(), '@'); i >= 0 && !slices.Contains(names, lines.Text()[i:]) {
			names = append(names, lines.Text()[i:])
		}
	}
	return names
}

// attack is the stranger.
func attack(lasts time.Duration, seed uint64, doors []string) error {
	random := rand.New(rand.NewPCG(seed, 0))
	var silent []int
	knocks, gained := 0, 0
	for end := time.Now().Add(lasts); time.Now().Before(end); knocks++ {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: doors[random.IntN(len(doors))]}); err != nil {
			return os.NewSyscallError("connect", err)
		}
		says := fmt.Appendf(nil, "FDKIT=1\x00ATTACH=%016x%016x\x00", random.Uint64(), random.Uint64())
		switch random.IntN(6) {
		case 0:
			if silent = append(silent, fd); len(silent) > 40 {
				unix.Close(silent[0])
				silent = silent[1:]
			}
			continue
		case 1:
			says = []byte("FDKIT=1\x00ATTACH=\x00")
		case 2:
			says = says[:random.IntN(len(says))]
		case 3:
			says = make([]byte, 1+random.IntN(8000))
			for i := range says {
				says[i] = byte(random.Uint32())
			}
		}
		// The answer comes at once, or the door does not like what was said.
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20_000})
		if _, err := scm.NewSender(fd, nil).Try(says, []int{0, fd}[:random.IntN(3)], nil, 0); err == nil {
			var b, rights [1024]byte
			if _, n, _, _, err := unix.Recvmsg(fd, b[:], rights[:], unix.MSG_CMSG_CLOEXEC); err == nil && n > 0 {
				gained++
			}
		}
		unix.Close(fd)
	}
	_, err := fmt.Printf("%d knocks, %d descriptors\n", knocks, gained)
	return err
}
