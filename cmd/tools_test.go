//go:build linux

package cmd_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/fdrecv"
	"fdkit/fdsend"
)

// await runs a shell command again and again until it succeeds:
//
//	await 'test -s address'
//
// It fails after ten seconds, and shows what the command said last.
func await() {
	command := strings.Join(os.Args[1:], " ")
	deadline := time.Now().Add(10 * time.Second)
	for {
		out, err := exec.Command("sh", "-c", command).CombinedOutput()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			fmt.Fprintf(os.Stderr, "await %q: not so within 10 s: %v\n%s", command, err, out)
			os.Exit(1)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// dial is a client: it connects to ADDRESS (HOST:PORT or unix:PATH), sends its
// stdin, shuts its sending side down, and prints what it gets.
//
//	dial [-from IP] [-hold FILE] [-count N] [-parallel N] [-greeting TEXT] ADDRESS
//
// With -from its own address is IP, of which 127.0.0.0/8 has many. With -count it
// makes N connections, some at once, each with all of stdin, and expects it back, with
// -greeting after a line of that: it prints how many were answered so, and what befell
// the others.
func dial() {
	count := flag.Int("count", 0, "connections that expect an echo")
	parallel := flag.Int("parallel", 8, "of these at once")
	greeting := flag.String("greeting", "", "the line that comes before the echo")
	hold := flag.String("hold", "", "after sending, keep the sending side open until this file exists")
	var dialer net.Dialer
	flag.Func("from", "this end's IP address", func(ip string) (err error) {
		dialer.LocalAddr, err = net.ResolveTCPAddr("tcp", net.JoinHostPort(ip, "0"))
		return err
	})
	flag.Parse()
	input, err := io.ReadAll(os.Stdin)
	fatal(err)
	if *count == 0 {
		out, err := exchangeFrom(dialer, flag.Arg(0), input, *hold)
		os.Stdout.Write(out)
		fatal(err)
		return
	}
	want := input
	if *greeting != "" {
		want = append([]byte(*greeting+"\n"), input...)
	}
	var answered atomic.Int64
	var troubles sync.Map
	var group sync.WaitGroup
	turns := make(chan struct{}, *parallel)
	for range *count {
		turns <- struct{}{}
		group.Go(func() {
			out, err := exchangeFrom(dialer, flag.Arg(0), input, "")
			switch {
			case err != nil:
				troubles.Store(err.Error(), nil)
			case !bytes.Equal(out, want):
				troubles.Store(fmt.Sprintf("got %q", out), nil)
			default:
				answered.Add(1)
			}
			<-turns
		})
	}
	group.Wait()
	fmt.Printf("%d answered\n", answered.Load())
	troubles.Range(func(text, _ any) bool {
		fmt.Println(text)
		return true
	})
}

// crowd opens connections one after the other, each when the one before has had 64 bytes
// answered, and keeps them: until FILE exists, and all are answered once more.
//
//	crowd -count N [-until FILE] ADDRESS
func crowd() {
	count := flag.Int("count", 1, "connections")
	until := flag.String("until", "", "ask again, and end, when this file exists")
	flag.Parse()
	ask := func(c net.Conn) {
		question := bytes.Repeat([]byte{'q'}, 64)
		_, err := c.Write(question)
		fatal(err)
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
		answer := make([]byte, len(question))
		_, err = io.ReadFull(c, answer)
		fatal(err)
		if !bytes.Equal(answer, question) {
			fatal(fmt.Errorf("the answer is %q, want %q", answer, question))
		}
	}
	var all []net.Conn
	for range *count {
		c, err := net.Dial("tcp", flag.Arg(0))
		fatal(err)
		ask(c)
		all = append(all, c)
	}
	if *until == "" {
		return
	}
	fmt.Println(len(all), "open")
	for {
		if _, err := os.Stat(*until); err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	for _, c := range all {
		ask(c)
	}
	fmt.Println(len(all), "answered")
}

func exchange(address string, input []byte, hold string) ([]byte, error) {
	return exchangeFrom(net.Dialer{}, address, input, hold)
}

func exchangeFrom(dialer net.Dialer, address string, input []byte, hold string) ([]byte, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	dialer.Timeout = 10 * time.Second
	conn, err := dialer.Dial(network, address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	go func() {
		_, _ = conn.Write(input)
		for hold != "" {
			if _, err := os.Stat(hold); err == nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		_ = conn.(interface{ CloseWrite() error }).CloseWrite()
	}()
	return io.ReadAll(conn)
}

// gone waits until the processes are gone or zombies.
func gone() {
	deadline := time.Now().Add(10 * time.Second)
	for _, pid := range os.Args[1:] {
		for {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			_, state, _ := strings.Cut(string(stat), ") ")
			if err != nil || strings.HasPrefix(state, "Z") {
				break
			}
			if time.Now().After(deadline) {
				fatal(fmt.Errorf("not gone within 10 s: %s", stat))
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// burden runs a command with all that a bad parent can leave to it: signals
// ignored and blocked, and descriptor 9 open.
func burden() {
	runtime.LockOSThread()
	for _, sig := range []os.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGHUP, unix.SIGPIPE, unix.SIGCHLD, unix.SIGTSTP, unix.SIGUSR1} {
		signal.Ignore(sig)
	}
	var all unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	fatal(unix.PthreadSigmask(unix.SIG_SETMASK, &all, nil))
	fatal(unix.Dup2(2, 9))
	path, err := exec.LookPath(os.Args[1])
	fatal(err)
	fatal(unix.Exec(path, os.Args[1:], os.Environ()))
}

// holding runs a command with a listening socket as descriptor 3, and holds the
// socket all the while. It writes the socket's address to a file first.
//
//	holding FILE COMMAND [ARGUMENT...]
func holding() {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	fatal(err)
	fatal(os.WriteFile(os.Args[1], []byte(l.Addr().String()+"\n"), 0o666))
	socket, err := l.(*net.TCPListener).File()
	fatal(err)
	command := exec.Command(os.Args[2], os.Args[3:]...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.ExtraFiles = []*os.File{socket}
	fatal(command.Run())
}

// notified is a service manager: it binds the datagram socket PATH, for
// NOTIFY_SOCKET, and prints each message that comes as a line, until it is killed.
//
//	notified PATH
func notified() {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: os.Args[1], Net: "unixgram"})
	fatal(err)
	b := make([]byte, 4096)
	for {
		n, err := conn.Read(b)
		fatal(err)
		fmt.Println(strings.ReplaceAll(string(b[:n]), "\n", " "))
	}
}

// give sends descriptors to the queue behind stdout, as a foreign program
// may: with no payload of ours, O_NONBLOCK set.
//
//	give ADDRESS...
//
// Each address is connected to, and the connection sent.
func give() {
	q, err := fdsend.Open(os.Getenv("TO"), fdsend.Options{Wait: 10 * time.Second})
	fatal(err)
	for _, address := range os.Args[1:] {
		conn, err := net.Dial("tcp", address)
		fatal(err)
		file, err := conn.(*net.TCPConn).File()
		fatal(err)
		fatal(unix.SetNonblock(int(file.Fd()), true))
		fatal(q.Sender().Send([]byte("x"), int(file.Fd())))
	}
	fatal(q.Drain(context.Background()))
}

// filter is a filter between queues, as fdkit's own will be: it passes on what it
// receives, and says the payload's variable that its argument names.
func filter() {
	from, err := fdrecv.Open("", fdrecv.Options{})
	fatal(err)
	to, err := fdsend.Open("", fdsend.Options{})
	fatal(err)
	interrupted := make(chan os.Signal, 1) // also where a shell's & has made INT ignored
	signal.Notify(interrupted, unix.SIGINT)
	go func() {
		select {
		case <-to.Gone():
		case <-interrupted:
		}
		os.Exit(0)
	}()
	receiver, sender := from.Receiver(), to.Sender()
	var m fdrecv.Message
	for {
		err := receiver.Receive(&m)
		if err == io.EOF {
			return
		}
		fatal(err)
		for name, value := range m.Vars() {
			if len(os.Args) > 1 && name == os.Args[1] {
				fmt.Fprintf(os.Stderr, "filter: %s\n", value)
			}
		}
		fatal(sender.Send(m.Payload, m.FDs...))
		m.Close()
	}
}

// fields reads lines of JSON, each of which must be an object, and prints of each the
// fields that it has of those named:
//
//	fields NAME... <FILE
func fields() {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(lines.Bytes(), &object); err != nil {
			fatal(fmt.Errorf("%w: %q", err, lines.Text()))
		}
		var found []string
		for _, name := range os.Args[1:] {
			if value, ok := object[name]; ok {
				found = append(found, name+"="+string(value))
			}
		}
		fmt.Println(strings.Join(found, " "))
	}
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, os.Args[0]+":", err)
		os.Exit(1)
	}
}
