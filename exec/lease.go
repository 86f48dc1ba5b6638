//go:build linux

package exec

import (
	"bytes"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"fdkit/internal/scm"
)

// lease is a connection that a worker has been given and has not said DONE to. The
// pool keeps copies of its descriptors.
type lease struct {
	id uint64
	parcel
}

const leaseName = "FDKIT_LEASE"

// grant makes a lease of a parcel that is in the worker's queue now, which it owns.
func (r *Worker) grant(id uint64, p parcel) { r.leases = append(r.leases, lease{id, p.keep()}) }

// unlease forgets the lease that was granted last, whose connection the worker has not
// received; its copies are closed.
func (r *Worker) unlease() {
	if n := len(r.leases); n > 0 {
		r.leases[n-1].close()
		r.leases = r.leases[:n-1]
		r.credit++
	}
}

// finish ends the lease with that number or, if none is given, the oldest.
func (r *Worker) finish(id uint64, given bool) {
	i := 0
	if given {
		i = slices.IndexFunc(r.leases, func(l lease) bool { return l.id == id })
	}
	if i >= 0 && i < len(r.leases) {
		r.leases[i].close()
		r.leases = slices.Delete(r.leases, i, i+1)
	}
}

// untouched tells whether nobody has read from the connection or written to it.
func (l lease) untouched() bool {
	fd := l.fds[0]
	if protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || protocol != unix.IPPROTO_TCP {
		return false // it cannot be known
	}
	for range 100 {
		var info unix.TCPInfo
		before, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
		if err != nil || !tcpInfo(fd, &info) || info.Bytes_sent != 0 {
			return false
		}
		received := bytesReceived(&info)
		if received == int64(before) {
			return !urgent(fd)
		}
		if after, err := unix.IoctlGetInt(fd, unix.TIOCINQ); err != nil || received > int64(after) {
			return false
		}
		// The client has sent something between the calls: look again.
	}
	return false
}

// withLease returns the payload with the lease's number in it, in room, if it has
// variables.
func withLease(room, payload []byte, id uint64) []byte {
	if !bytes.HasPrefix(payload, []byte(scm.Begin)) || len(payload) > scm.MaxPayload-len(leaseName)-22 {
		return payload
	}
	room = append(room[:0], payload...)
	return scm.AppendVar(room, leaseName, strconv.FormatUint(id, 10))
}

// withoutLease takes the number of a lease out of the payload, which it changes: what
// withLease has put there, or another pool.
func withoutLease(payload []byte) []byte {
	if !bytes.HasPrefix(payload, []byte(scm.Begin)) {
		return payload
	}
	for {
		i := bytes.Index(payload, []byte("\x00"+leaseName+"=")) + 1
		if i == 0 {
			return payload
		}
		end := bytes.IndexByte(payload[i:], 0)
		if end < 0 {
			return payload[:i]
		}
		payload = slices.Delete(payload, i, i+end+1)
	}
}
