//go:build linux

package scm_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/scm"
)

// BenchmarkSendReceive passes messages on, each with some descriptors, and closes them.
// Of what a connection costs a pipeline, this is the part that serve does not have.
func BenchmarkSendReceive(b *testing.B) {
	for _, n := range []int{1, 2, 16} {
		b.Run(fmt.Sprintf("%d descriptors", n), func(b *testing.B) {
			q := newQueue(b, unix.SOCK_SEQPACKET)
			payload := []byte(scm.Begin + "PROTO=TCP\x00TCPLOCALIP=127.0.0.1\x00TCPLOCALPORT=8080\x00TCPREMOTEIP=192.0.2.1\x00TCPREMOTEPORT=50000\x00")
			fds := make([]int, n)
			for i := range fds {
				fds[i] = q.send.FD
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := q.sender.Send(payload, fds...); err != nil {
					b.Fatal(err)
				}
				if err := q.receiver.Receive(&q.message); err != nil {
					b.Fatal(err)
				}
				q.message.Close()
			}
		})
	}
}
