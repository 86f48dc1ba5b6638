//go:build linux

package exec

import (
	"os"
	"testing"
)

func BenchmarkEnviron(b *testing.B) {
	e, err := NewEnviron(os.Environ())
	if err != nil {
		b.Fatal(err)
	}
	payload := []byte("FDKIT=1\x00PROTO=TCP\x00TCPLOCALIP=192.0.2.1\x00TCPLOCALPORT=80\x00TCPREMOTEIP=192.0.2.2\x00TCPREMOTEPORT=45678\x00REMOTE_ADDR=192.0.2.2\x00REMOTE_PORT=45678\x00FDKIT_ACCEPTED=1763833000.123456\x00")
	var block envBlock
	b.ReportAllocs()
	for b.Loop() {
		e.fill(&block, -1, payload)
	}
}
