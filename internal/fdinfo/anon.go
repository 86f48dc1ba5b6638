//go:build linux

package fdinfo

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// EpollInfo is what an epoll(7) descriptor watches.
type EpollInfo struct {
	Watches []EpollWatch `json:"watches,omitempty"`
}

// EpollWatch is one descriptor that is watched, by the number that it had when it was
// added: it may be another one's, or nobody's, by now.
type EpollWatch struct {
	FD     int      `json:"fd"`
	Events []string `json:"events,omitempty"` // EPOLL..., epoll_ctl(2)
	Data   string   `json:"data"`             // epoll_data, hexadecimal
	Inode  uint64   `json:"inode,omitempty"`
	Device string   `json:"device,omitempty"`
}

// EventfdInfo is of an eventfd(2) descriptor.
type EventfdInfo struct {
	Count     uint64 `json:"count"`
	Semaphore bool   `json:"semaphore,omitempty"`
}

// TimerfdInfo is of a timerfd_create(2) descriptor.
type TimerfdInfo struct {
	Clock    string   `json:"clock"`              // CLOCK_MONOTONIC
	Left     *float64 `json:"left,omitempty"`     // seconds until it expires; nil if it is not armed
	Interval *float64 `json:"interval,omitempty"` // seconds
	Ticks    uint64   `json:"ticks"`              // expirations that were not read
}

// SignalfdInfo is of a signalfd(2) descriptor.
type SignalfdInfo struct {
	Signals []string `json:"signals"`
}

// NotifyInfo is of an inotify(7) or fanotify(7) descriptor.
type NotifyInfo struct {
	Watches []NotifyWatch `json:"watches,omitempty"`
}

// NotifyWatch is a file or, with fanotify, a mount or file system that is watched.
type NotifyWatch struct {
	ID     int    `json:"id,omitempty"` // the watch descriptor of inotify
	Inode  uint64 `json:"inode,omitempty"`
	Device string `json:"device,omitempty"`
	Mount  int    `json:"mount,omitempty"`
	Mask   string `json:"mask"` // events, hexadecimal
}

// PidfdInfo is of a pidfd, pidfd_open(2).
type PidfdInfo struct {
	// PID is 0 if the process is in a PID namespace that is not seen from here, and -1
	// if it has ended and been waited for.
	PID int `json:"pid"`
}

// NamespaceInfo is of a namespace, namespaces(7).
type NamespaceInfo struct {
	Type string `json:"type,omitempty"` // net, mnt, ...
}

// BPFInfo is of a bpf(2) object.
type BPFInfo struct {
	Object string `json:"object"` // map, prog or link
	ID     int64  `json:"id,omitempty"`
	Type   string `json:"type,omitempty"` // its number, enum bpf_map_type and so on
}

// anonymousKinds are the names of anonymous inodes; where the kernel's are with
// brackets and where without is as it came.
var anonymousKinds = map[string]Kind{
	"eventpoll":   Epoll,
	"eventfd":     Eventfd,
	"timerfd":     Timerfd,
	"signalfd":    Signalfd,
	"inotify":     Inotify,
	"fanotify":    Fanotify,
	"pidfd":       Pidfd,
	"io_uring":    IOUring,
	"userfaultfd": Userfaultfd,
	"perf_event":  PerfEvent,
	"bpf-map":     BPF,
	"bpf-prog":    BPF,
	"bpf_link":    BPF,
	"bpf-link":    BPF,
}

// anonymous tells what an anonymous inode is, from the lines that
// proc_pid_fdinfo(5) and Documentation/filesystems/proc.rst have of each.
func (v *view) anonymous(d *Description) {
	name, found := strings.CutPrefix(v.link, "anon_inode:")
	if pidfd := strings.HasPrefix(v.link, "pidfd:["); pidfd {
		name, found = "pidfd", true
	}
	kind, known := anonymousKinds[strings.Trim(name, "[]")]
	if !found || !known || d.Kind != Other {
		return
	}
	d.Kind = kind
	switch kind {
	case Epoll:
		d.Epoll = parseEpoll(v.info)
	case Eventfd:
		// eventfd-count is in hexadecimal, eventfd_show_fdinfo() in fs/eventfd.c
		n, err := strconv.ParseUint(v.info.first("eventfd-count"), 16, 64)
		if err == nil {
			d.Eventfd = &EventfdInfo{Count: n, Semaphore: v.info.first("eventfd-semaphore") == "1"}
		}
	case Timerfd:
		d.Timerfd = parseTimerfd(v.info)
	case Signalfd:
		if mask, err := strconv.ParseUint(v.info.first("sigmask"), 16, 64); err == nil {
			d.Signalfd = &SignalfdInfo{Signals: signals(mask)}
		}
	case Inotify:
		d.Inotify = parseNotify(v.info, "inotify ")
	case Fanotify:
		d.Fanotify = parseNotify(v.info, "fanotify ")
	case Pidfd:
		if pid, ok := v.info.number("Pid"); ok {
			d.Pidfd = &PidfdInfo{PID: int(pid)}
		}
	case BPF:
		object := strings.Trim(name, "[]")[len("bpf-"):]
		d.BPF = &BPFInfo{Object: object, Type: v.info.first(object + "_type")}
		d.BPF.ID, _ = v.info.number(object + "_id")
	}
}

// epollEvents are the bits of epoll_ctl(2), and EPOLLONESHOT and its like.
var epollEvents = []bitName{
	{unix.EPOLLIN, "EPOLLIN"},
	{unix.EPOLLPRI, "EPOLLPRI"},
	{unix.EPOLLOUT, "EPOLLOUT"},
	{unix.EPOLLERR, "EPOLLERR"},
	{unix.EPOLLHUP, "EPOLLHUP"},
	{unix.EPOLLRDNORM, "EPOLLRDNORM"},
	{unix.EPOLLRDBAND, "EPOLLRDBAND"},
	{unix.EPOLLWRNORM, "EPOLLWRNORM"},
	{unix.EPOLLWRBAND, "EPOLLWRBAND"},
	{unix.EPOLLMSG, "EPOLLMSG"},
	{unix.EPOLLRDHUP, "EPOLLRDHUP"},
	{unix.EPOLLEXCLUSIVE, "EPOLLEXCLUSIVE"},
	{unix.EPOLLWAKEUP, "EPOLLWAKEUP"},
	{unix.EPOLLONESHOT, "EPOLLONESHOT"},
	{unix.EPOLLET, "EPOLLET"},
}

// parseEpoll reads lines such as
//
//	tfd:        3 events:       19 data:                3  pos:0 ino:f2b1ff sdev:f
//
// where all but the first number is in hexadecimal. ino and sdev came with Linux 5.
func parseEpoll(i info) *EpollInfo {
	e := &EpollInfo{}
	for line := range i.all("tfd") {
		fields := pairs(line)
		fd, err := strconv.Atoi(fields[""])
		events, err2 := strconv.ParseUint(fields["events"], 16, 32)
		if err != nil || err2 != nil {
			continue
		}
		// EPOLLERR and EPOLLHUP are always there, epoll_ctl(2).
		events &^= unix.EPOLLERR | unix.EPOLLHUP
		w := EpollWatch{FD: fd, Events: bits(events, epollEvents), Data: "0x" + fields["data"]}
		w.Inode, w.Device = inode(fields)
		e.Watches = append(e.Watches, w)
	}
	return e
}

// inode reads ino: and sdev:, which are in hexadecimal; sdev is the kernel's dev_t,
// with 20 bits of minor number, MINORBITS in include/linux/kdev_t.h.
func inode(fields map[string]string) (ino uint64, dev string) {
	ino, err := strconv.ParseUint(fields["ino"], 16, 64)
	if err != nil {
		return 0, ""
	}
	sdev, err := strconv.ParseUint(fields["sdev"], 16, 32)
	if err != nil {
		return ino, ""
	}
	return ino, device(uint32(sdev>>20), uint32(sdev&(1<<20-1)))
}

// parseNotify reads lines such as
//
//	inotify wd:1 ino:3c4a3 sdev:fe00000 mask:2 ignored_mask:0 fhandle-bytes:8 ...
//	fanotify mnt_id:12 mflags:0 mask:3b ignored_mask:0
func parseNotify(i info, prefix string) *NotifyInfo {
	n := &NotifyInfo{}
	for _, line := range i.lines {
		rest, found := strings.CutPrefix(line.name, prefix)
		if !found {
			continue
		}
		fields := pairs(rest + ":" + line.value)
		if fields["mask"] == "" {
			continue // flags of fanotify as a whole
		}
		w := NotifyWatch{Mask: "0x" + fields["mask"]}
		w.Inode, w.Device = inode(fields)
		if w.Inode == 0 && fields["sdev"] != "" { // a whole file system
			_, w.Device = inode(map[string]string{"ino": "0", "sdev": fields["sdev"]})
		}
		if id, err := strconv.ParseInt(fields["wd"], 10, 32); err == nil {
			w.ID = int(id)
		}
		if mount, err := strconv.ParseInt(fields["mnt_id"], 16, 32); err == nil {
			w.Mount = int(mount)
		}
		n.Watches = append(n.Watches, w)
	}
	return n
}

var clocks = map[int64]string{
	unix.CLOCK_REALTIME:       "CLOCK_REALTIME",
	unix.CLOCK_MONOTONIC:      "CLOCK_MONOTONIC",
	unix.CLOCK_BOOTTIME:       "CLOCK_BOOTTIME",
	unix.CLOCK_REALTIME_ALARM: "CLOCK_REALTIME_ALARM",
	unix.CLOCK_BOOTTIME_ALARM: "CLOCK_BOOTTIME_ALARM",
}

func parseTimerfd(i info) *TimerfdInfo {
	id, ok := i.number("clockid")
	if !ok {
		return nil // a kernel without CONFIG_PROC_FS's lines
	}
	t := &TimerfdInfo{Clock: clocks[id]}
	if t.Clock == "" {
		t.Clock = strconv.FormatInt(id, 10)
	}
	t.Ticks, _ = strconv.ParseUint(i.first("ticks"), 10, 64)
	if left, ok := seconds(i.first("it_value")); ok && left > 0 {
		t.Left = &left
	}
	if interval, ok := seconds(i.first("it_interval")); ok && interval > 0 {
		t.Interval = &interval
	}
	return t
}

// seconds reads "(99, 976101985)": seconds and nanoseconds.
func seconds(text string) (float64, bool) {
	var s, ns int64
	if _, err := fmt.Sscanf(text, "(%d, %d)", &s, &ns); err != nil || s < 0 || ns < 0 || ns > 999999999 {
		return 0, false
	}
	// To the microsecond: more digits say nothing.
	return float64(s) + math.Round(float64(ns)/1000)/1e6, true
}

// signals names the signals of a mask whose lowest bit is signal 1.
func signals(mask uint64) []string {
	names := []string{}
	for n := range 64 {
		if mask>>n&1 != 0 {
			names = append(names, signal(n+1))
		}
	}
	return names
}

// signal returns a signal's name. SIGRTMIN is glibc's, signal(7).
func signal(n int) string {
	const rtmin = 34
	name := unix.SignalName(unix.Signal(n))
	switch {
	case name != "":
	case n == rtmin:
		name = "SIGRTMIN"
	case n > rtmin:
		name = "SIGRTMIN+" + strconv.Itoa(n-rtmin)
	default:
		name = strconv.Itoa(n)
	}
	return name
}
