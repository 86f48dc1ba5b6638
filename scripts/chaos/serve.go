//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/scm"
)

// inside is the name by which this program is run as a program of fdkit's.
const inside = "chaos-serve"

// serve is the program that fdkit runs. Its words are what it does:
//
//	RECORD resident TIME   a worker that asks for each connection with READY
//	RECORD one TIME        the program for one connection
//	RECORD stuff TIME      the one that has as much in flight as it may
//	RECORD attack TIME SEED DOOR...
//	                       the stranger, for that time
//
// TIME is how long a connection takes, half of it before it is touched.
func serve(args []string) {
	if err := serveAs(args); err != nil {
		fmt.Fprintln(os.Stderr, "chaos-serve:", err)
		os.Exit(1)
	}
}

func serveAs(args []string) error {
	if len(args) < 3 {
		return errors.New("a record, what to do and a time are needed")
	}
	r, err := openRecord(args[0])
	if err != nil {
		return err
	}
	takes, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	switch args[1] {
	case "resident":
		return resident(r, takes)
	case "one":
		if flags, err := unix.FcntlInt(0, unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
			return fmt.Errorf("the connection has flags %#x, %v; want a blocking one", flags, err)
		}
		answer(r, 0, takes)
		return nil
	case "stuff":
		return stuff()
	case "attack":
		seed, err := strconv.ParseUint(args[3], 10, 64)
		if err != nil {
			return err
		}
		return attack(takes, seed, args[4:])
	}
	return fmt.Errorf("%q is nothing to do", args[1])
}

// resident serves one connection after the other.
func resident(r *record, takes time.Duration) error {
	receiver, sender := scm.NewReceiver(0, nil), scm.NewSender(0, nil)
	var m scm.Message
	for say := "READY"; ; say = "DONE\nREADY" {
		if err := sender.Send([]byte(say)); err != nil && !errors.Is(err, scm.ErrGone) {
			return err
		}
		if err := receiver.Receive(&m); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		answer(r, m.FDs[0], takes)
		_ = unix.Shutdown(m.FDs[0], unix.SHUT_RDWR)
		m.Close()
	}
}

// answer serves one connection. It looks first, and takes what the client has sent only
// when it has noted that it will: there is no moment at which something is taken and not
// noted.
func answer(r *record, fd int, takes time.Duration) {
	time.Sleep(takes / 2)
	var line [64]byte
	var id int64
	for {
		n, _, err := unix.Recvfrom(fd, line[:], unix.MSG_PEEK)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return // the client has gone
		}
		end := slices.Index(line[:n], '\n')
		if end < 0 {
			return // clients write it as a whole: this one has gone
		}
		if id, err = strconv.ParseInt(string(line[:end]), 10, 64); err != nil {
			return
		}
		break
	}
	e, err := r.of(id)
	if err != nil {
		return
	}
	e.begun.Add(1)
	n, err := unix.Read(fd, line[:])
	if err != nil || n <= 0 {
		return
	}
	e.taken.Add(1)
	time.Sleep(takes / 2)
	_, _ = unix.Write(fd, line[:n])
}
