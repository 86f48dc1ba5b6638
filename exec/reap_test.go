//go:build linux

package exec

import (
	osexec "os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// A program that has ended takes up neither a slot nor a place of its source, also
// before the reaper has seen its end.
func TestEndedTakesUpNothing(t *testing.T) {
	client := source{user: true, uid: 1}
	for _, test := range []struct {
		name string
		room func(p *Pool) bool
	}{
		{"slot", (*Pool).slot},
		{"enter", func(p *Pool) bool { return p.enter(client) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &Pool{
				Program: &Program{Args: []string{"true"}}, PerSource: SourceLimit{N: 1}, sources: map[source]int{client: 1},
				running: map[int]*Run{}, slots: make(chan struct{}, 1), wanted: make(chan struct{}, 1),
			}
			p.slots <- struct{}{}
			if test.room(p) {
				t.Fatal("there is room beside the program that runs, want none")
			}
			c := osexec.Command("true")
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			p.running[c.Process.Pid] = &Run{PID: c.Process.Pid, watch: &watch{source: client, fd: -1}}
			if err := unix.Waitid(unix.P_PID, c.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
				t.Fatalf("waitid: %v", err)
			}
			if !test.room(p) {
				t.Error("there is no room after the program has ended, want some")
			}
			if len(p.running) != 0 {
				t.Errorf("the pool has %d programs running, want 0", len(p.running))
			}
			_ = c.Process.Release()
		})
	}
}
