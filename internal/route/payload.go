//go:build linux

package route

import (
	"strings"

	"fdkit/internal/fdinfo"
	"fdkit/internal/scm"
)

// keyName is the variable that the key travels on in.
const keyName = "FDKIT_KEY"

// withKey returns the connection's variables with the key, and without another one. A
// payload that has none begins anew, with what the socket itself tells: a receiver would
// ask it if there were none. It returns false if there is no room for the key.
func (c *Connection) withKey() (payload []byte, fits bool) {
	_, had := scm.Var(c.Payload, keyName)
	if !c.Known && !had {
		return c.Payload, true
	}
	payload = make([]byte, 0, scm.MaxPayload)
	payload = append(payload, scm.Begin...)
	for entry := range scm.Entries(c.Payload) {
		if !strings.HasPrefix(string(entry), keyName+"=") {
			payload = append(payload, entry...)
		}
	}
	if len(payload) == len(scm.Begin) && !had {
		if conn, ok := fdinfo.Connection(c.FDs[0]); ok {
			payload = conn.AppendVars(payload)
		}
	}
	before := len(payload)
	if c.Known {
		payload = scm.AppendVar(payload, keyName, Quote(c.Key))
	}
	if len(payload) > scm.MaxPayload {
		return payload[:before], false
	}
	return payload, true
}
