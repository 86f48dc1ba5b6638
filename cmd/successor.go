//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/exec"
	"fdkit/fdrecv"
	"fdkit/internal/hint"
	"fdkit/internal/nofile"
)

// successor is the program that fdkit recv becomes.
type successor struct {
	*runner
	places []int // one: from there on
}

// firstPassed is where descriptors of sd_listen_fds(3) begin, SD_LISTEN_FDS_START.
const firstPassed = 3

// unknownName is that of a descriptor that has none, sd_listen_fds_with_names(3).
const unknownName = "unknown"

// successorOf checks the options that go with a program, or without. It is nil if there
// is none.
func successorOf(c *cli.Context) (*successor, error) {
	if c.NArg() == 0 {
		for _, option := range []string{"fd", "accept-env", "dialect"} {
			if c.IsSet(option) {
				return nil, usagef("option --%s: it is for a program, and none is given", option)
			}
		}
		return nil, nil
	}
	for _, option := range []string{"count", "json", "explain", "list"} {
		if c.IsSet(option) {
			return nil, usagef("option --%s: a program is given, which gets the one message that is received", option)
		}
	}
	places := c.Generic("fd").(*places).list
	for i, place := range places {
		if slices.Contains(places[:i], place) {
			return nil, usagef("option --fd: %d is given twice", place)
		}
	}
	name := c.Args().First()
	if name == "" {
		return nil, usagef("the program's name is empty")
	}
	run, err := runnerOf(c, c.Args().Slice(), &exec.Confinement{}, withoutManager(os.Environ()))
	if missing, ok := errors.AsType[*exec.NotRunnableError](err); ok && (isSocket(name) || looksLikeAddress(name)) {
		missing.Err = hint.Wrap(missing.Err, "it was taken for the program; a queue is --from "+name)
	}
	return &successor{run, places}, err
}

// placesFor returns a place for each of n descriptors, or for as many as there are
// places.
func (s *successor) placesFor(n int) []int {
	if len(s.places) > 1 {
		return s.places[:min(n, len(s.places))]
	}
	var all []int
	for i := range n {
		all = append(all, s.places[0]+i)
	}
	return all
}

// become becomes the program with the descriptors of the message, and returns only if
// that fails.
func (s *successor) become(m *fdrecv.Message) error {
	numbers := s.placesFor(len(m.FDs))
	env := s.environ.For(m.FDs[0], m.Payload)
	if passed := passedEnv(numbers, namesOf(m)); passed != nil {
		env = append(withoutSockets(env), passed...)
	}
	var all []exec.Place
	for i, at := range numbers {
		// As systemd does with what it passes. It fails with O_PATH, which has no such flag.
		_ = unix.SetNonblock(m.FDs[i], false)
		all = append(all, exec.Place{FD: m.FDs[i], At: at})
	}
	if extra := m.FDs[len(numbers):]; len(extra) > 0 {
		s.log.error(errors.New("the message has " + count(len(extra),
			"more descriptor than --fd has places; it is closed", "more descriptors than --fd has places; they are closed")))
	}
	if missing := len(s.places) - len(numbers); missing > 0 {
		s.log.error(fmt.Errorf("the message has %s, and --fd %d places: the last are as they were",
			count(len(m.FDs), "descriptor", "descriptors"), len(s.places)))
	}
	// It gets the limit that this command was started with, which may be lower.
	if limit := nofile.Original.Cur; limit > 0 && uint64(slices.Max(numbers)) >= limit {
		s.log.error(hint.Wrap(fmt.Errorf("the program has a descriptor %d, and a limit of %d: it can open no other", slices.Max(numbers), limit),
			"ulimit -n shows and raises the limit (RLIMIT_NOFILE)"))
	}
	err := s.program.BecomeWith(all, env)
	m.Close()
	if place, ok := errors.AsType[*exec.PlaceError](err); ok {
		return hint.Wrap(fmt.Errorf("option --fd: cannot place a descriptor at %d: %w", place.Place, place.Err),
			"ulimit -n shows and raises the limit (RLIMIT_NOFILE)")
	}
	return err
}

// passedEnv returns the variables of sd_listen_fds(3), if the descriptors are where
// that looks for them.
func passedEnv(places []int, names []string) []string {
	called := make([]string, len(places))
	for i, place := range places {
		if place != firstPassed+i {
			return nil
		}
		called[i] = unknownName
		if i < len(names) && names[i] != "" && checkListenName(names[i]) == nil {
			called[i] = names[i]
		}
	}
	return []string{
		"LISTEN_PID=" + strconv.Itoa(os.Getpid()),
		"LISTEN_FDS=" + strconv.Itoa(len(places)),
		"LISTEN_FDNAMES=" + strings.Join(called, ":"),
	}
}
