//go:build linux

package exec_test

import (
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/exec"
)

// BenchmarkPool runs a program for each of many connections.
func BenchmarkPool(b *testing.B) {
	program, err := exec.Find("true")
	if err != nil {
		b.Fatal(err)
	}
	environ, _ := exec.NewEnviron(nil)
	left := b.N
	source := make(chan int)
	p := &exec.Pool{Program: program, Environ: environ, Slots: 8, Receivers: func() func(*exec.Connection) error {
		fds := make([]int, 1)
		return func(c *exec.Connection) error {
			fd, ok := <-source
			if !ok {
				return io.EOF
			}
			fds[0] = fd
			c.FDs = fds
			c.Payload = []byte("FDKIT=1\x00PROTO=TCP\x00TCPREMOTEIP=192.0.2.1\x00")
			return nil
		}
	}}
	ended := make(chan error, 1)
	b.ReportAllocs()
	b.ResetTimer()
	go func() { ended <- p.Run() }()
	for range left {
		fd, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			b.Fatal(err)
		}
		source <- fd
	}
	close(source)
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
}
