//go:build linux

package proto

import (
	"bytes"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
)

// sdNotifyMeanings are those of sd_notify(3).
var sdNotifyMeanings = [][2]string{
	{"READY=1", "has started, or loaded its configuration"},
	{"RELOADING=1", "loads its configuration"},
	{"STOPPING=1", "is about to end"},
	{"STATUS", "its state in words"},
	{"ERRNO", "why it fails"},
	{"BUSERROR", "why it fails, of D-Bus"},
	{"EXIT_STATUS", "with what it ends"},
	{"NOTIFYACCESS", "who may notify from now on"},
	{"MAINPID", "its main process from now on"},
	{"MONOTONIC_USEC", "when it was sent"},
	{"WATCHDOG=1", "is alive"},
	{"WATCHDOG=trigger", "has found that something is wrong"},
	{"WATCHDOG_USEC", "within this many microseconds it is to say that it is alive"},
	{"EXTEND_TIMEOUT_USEC", "takes this many microseconds more"},
	{"FDSTORE=1", "hold the descriptors"},
	{"FDSTOREREMOVE=1", "close the descriptors of that name"},
	{"FDNAME", "the name of the descriptors"},
	{"FDPOLL=0", "hold them also when they are hung up"},
	{sdNotifyBarrier, "close the descriptor when all before is done"},
}

// sdNotifyDecoder explains datagrams, each by itself.
type sdNotifyDecoder struct{}

func (sdNotifyDecoder) Decode(_ Direction, data []byte, fds int) (lines []string) {
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		if len(line) == 0 {
			continue // behind the last one
		}
		text := excerpt(line)
		key, value, found := bytes.Cut(line, []byte("="))
		meaning := ""
		for _, one := range sdNotifyMeanings {
			if one[0] == string(line) || one[0] == string(key) {
				meaning = one[1]
			}
		}
		number, err := strconv.ParseUint(string(value), 10, 12)
		switch {
		case !found:
			text += ": no VARIABLE=VALUE"
		case string(key) == "ERRNO" && err == nil:
			text += ": fails with: " + fdinfo.Printable(unix.Errno(number).Error())
		case string(line) == sdNotifyBarrier && fds != 1:
			text += fmt.Sprintf(": a barrier has one descriptor, and this one %d", fds)
		case meaning != "":
			text += ": " + meaning
		}
		lines = append(lines, text)
	}
	return lines
}
