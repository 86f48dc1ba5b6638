package route

import "bufio"

// findLine finds the first line. The line's end, LF or CRLF, is not part of the key.
func findLine(b *By, data []byte, final bool) (string, int, Verdict) {
	// A line that has no end within the limit is none, also if the stream ends there:
	// that may not be known yet.
	n, line, _ := bufio.ScanLines(data, final && len(data) < b.Limit)
	if n == 0 {
		return "", 0, More
	}
	return string(line), n, Found
}

func findBytes(b *By, data []byte, _ bool) (string, int, Verdict) {
	if len(data) < b.bytes {
		return "", b.bytes, More
	}
	return string(data[:b.bytes]), b.bytes, Found
}

// findLengthPrefix finds the bytes that stand behind their length, in network order.
func findLengthPrefix(b *By, data []byte, _ bool) (string, int, Verdict) {
	if len(data) < b.bytes {
		return "", b.bytes, More
	}
	var length uint32
	for _, c := range data[:b.bytes] {
		length = length<<8 | uint32(c)
	}
	if length > maxQuoted {
		return "", 0, None // a quoted key is never shorter than the key
	}
	n := b.bytes + int(length)
	if len(data) < n {
		return "", n, More
	}
	return string(data[b.bytes:n]), n, Found
}
