//go:build linux

package queue

import "testing"

// Newcomers of one user that connect and never ask must not keep out others.
func TestDoorAdmitsEachUser(t *testing.T) {
	const hostile, friendly = 1001, 1002
	var d door
	for i := range silentNewcomers {
		if !d.admit(hostile) {
			t.Fatalf("silent newcomer %d of a user is turned away, want %d admitted", i+1, silentNewcomers)
		}
	}
	if d.admit(hostile) {
		t.Errorf("more than %d silent newcomers of a user are admitted", silentNewcomers)
	}
	if !d.admit(friendly) {
		t.Errorf("another user's newcomer is turned away")
	}
	d.asked(hostile)
	if !d.admit(hostile) {
		t.Errorf("when one has asked, the next of that user is turned away")
	}
}
