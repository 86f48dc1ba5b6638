package route

import (
	"strings"

	"golang.org/x/crypto/cryptobyte"
)

const handshake = 22 // ContentType, RFC 8446 section 5.1

// findSNI finds the server name of a ClientHello, RFC 6066 section 3. With Encrypted
// Client Hello, RFC 9849, that is the public name of the outer one.
//
// The server of crypto/tls could be asked, but it and net/http would make each start of
// fdkit a sixth longer, also of commands that route nothing; tests hold this to it.
func findSNI(_ *By, data []byte, _ bool) (string, int, Verdict) {
	switch {
	case len(data) == 0:
		return "", 0, More
	case data[0] != handshake: // known before the header is all there
		return "", 0, None
	}
	message, n, v := firstHandshake(data)
	if v != Found {
		return "", n, v
	}
	name, ok := serverName(message)
	if !ok || name == "" {
		return "", 0, None
	}
	return plainName(name), 0, Found
}

// firstHandshake returns the first handshake message of a TLS connection, which can be in
// several records, or More and where the record ends that is not all there: RFC 8446
// sections 5.1 and 4.
func firstHandshake(data []byte) (message cryptobyte.String, n int, v Verdict) {
	const (
		recordHeader = 5       // type, version and length
		maxRecord    = 1 << 14 // bytes, without the header
		header       = 4       // of the message: type and length
		maxMessage   = 1 << 16 // bytes, as crypto/tls has it
	)
	for {
		rest := data[n:]
		if len(rest) < recordHeader {
			return nil, n + recordHeader, More
		}
		size := int(rest[3])<<8 + int(rest[4])
		// The version of a record has no meaning, but is 3.x in all that there are; crypto/tls
		// takes that and more.
		if rest[0] != handshake || rest[1] > 15 || size == 0 || size > maxRecord {
			return nil, 0, None
		}
		n += recordHeader + size
		if len(rest) < recordHeader+size {
			return nil, n, More
		}
		message = append(message, rest[recordHeader:recordHeader+size]...)
		if len(message) < header {
			continue
		}
		length := header + int(message[1])<<16 + int(message[2])<<8 + int(message[3])
		switch {
		case length > header+maxMessage:
			return nil, 0, None
		case len(message) >= length:
			return message[:length], 0, Found
		}
	}
}

// serverName returns the name in a ClientHello, RFC 8446 section 4.1.2, "" if it has none.
// Of other extensions than the one with the name it does not look into.
func serverName(message cryptobyte.String) (name string, ok bool) {
	const (
		clientHello = 1 // HandshakeType
		version     = 2 // bytes
		random      = 32
	)
	var kind uint8
	var hello, session, ciphers, compressions, extensions cryptobyte.String
	if !message.ReadUint8(&kind) || kind != clientHello || !message.ReadUint24LengthPrefixed(&hello) ||
		!hello.Skip(version+random) || !hello.ReadUint8LengthPrefixed(&session) ||
		!hello.ReadUint16LengthPrefixed(&ciphers) || !hello.ReadUint8LengthPrefixed(&compressions) {
		return "", false
	}
	if hello.Empty() { // before there were extensions
		return "", true
	}
	if !hello.ReadUint16LengthPrefixed(&extensions) || !hello.Empty() {
		return "", false
	}
	seen := map[uint16]bool{}
	for !extensions.Empty() {
		var extension uint16
		var body cryptobyte.String
		if !extensions.ReadUint16(&extension) || !extensions.ReadUint16LengthPrefixed(&body) || seen[extension] {
			return "", false
		}
		seen[extension] = true
		if extension == 0 { // server_name
			if name, ok = nameOf(body); !ok {
				return "", false
			}
		}
	}
	return name, true
}

// nameOf returns the host name in a ServerNameList, RFC 6066 section 3: one of it, and
// without a dot at the end.
func nameOf(body cryptobyte.String) (name string, ok bool) {
	var list cryptobyte.String
	if !body.ReadUint16LengthPrefixed(&list) || list.Empty() || !body.Empty() {
		return "", false
	}
	for !list.Empty() {
		var kind uint8
		var one cryptobyte.String
		if !list.ReadUint8(&kind) || !list.ReadUint16LengthPrefixed(&one) || one.Empty() {
			return "", false
		}
		if kind != 0 { // host_name
			continue
		}
		if name != "" || strings.HasSuffix(string(one), ".") {
			return "", false
		}
		name = string(one)
	}
	return name, true
}
