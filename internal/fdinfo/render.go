//go:build linux

package fdinfo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// JSON returns the description as JSON has it.
func (d Description) JSON() []byte { return JSON(d) }

// JSON returns v, which can be encoded, as one line of JSON, without a line end. Whatever
// texts are in it, it is printable: other characters are escaped, and bytes that are no
// UTF-8 are U+FFFD.
func JSON(v any) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(v) // cannot fail: no type of ours does, and NaN does not occur
	return PrintableJSON(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}

// PrintableJSON returns JSON text with what is not printable in it escaped, and bytes
// that are no UTF-8 as U+FFFD.
func PrintableJSON(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for _, r := range string(text) {
		switch {
		case r < 0x10000 && !unicode.IsPrint(r):
			out = fmt.Appendf(out, `\u%04x`, r)
		case !unicode.IsPrint(r):
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			out = utf8.AppendRune(out, r)
		}
	}
	return out
}

// Verbose returns all that is known, a line for each fact: "name: value", each after
// the indent. The names are those of JSON.
func (d Description) Verbose(indent string) string {
	var b strings.Builder
	verbose(&b, indent, reflect.ValueOf(d))
	return b.String()
}

func verbose(b *strings.Builder, indent string, v reflect.Value) {
	for i := range v.NumField() {
		name, omit, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		field := v.Field(i)
		if omit != "" && field.IsZero() {
			continue
		}
		if field.Kind() == reflect.Pointer {
			field = field.Elem()
		}
		switch {
		case field.Kind() == reflect.Struct:
			verbose(b, indent+name+".", field)
		case field.Kind() == reflect.Slice && field.Type().Elem().Kind() == reflect.Struct,
			name == "locks": // each has blanks in it
			for j := range field.Len() {
				fmt.Fprintf(b, "%s%s: %s\n", indent, name, words(field.Index(j)))
			}
		default:
			fmt.Fprintf(b, "%s%s: %s\n", indent, name, words(field))
		}
	}
}

// words is a value in one line.
func words(v reflect.Value) string {
	var all []string
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			name, omit, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			if omit == "" || !v.Field(i).IsZero() {
				all = append(all, name+" "+words(v.Field(i)))
			}
		}
		return strings.Join(all, ", ")
	case reflect.Slice:
		for i := range v.Len() {
			all = append(all, words(v.Index(i)))
		}
		return strings.Join(all, " ")
	case reflect.Bool:
		return map[bool]string{false: "no", true: "yes"}[v.Bool()]
	case reflect.String:
		return Printable(v.String())
	}
	return fmt.Sprint(v.Interface())
}

// Printable returns text with what is not printable, and backslashes, as Go and C
// write it: \n, \x1b, \u202e. It keeps a name from breaking out of its line, and from
// commanding a terminal.
func Printable(text string) string {
	plain := func(r rune) bool { return r != '\\' && r != utf8.RuneError && unicode.IsPrint(r) }
	if strings.IndexFunc(text, func(r rune) bool { return !plain(r) }) < 0 {
		return text
	}
	var b []byte
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && size == 1:
			b = fmt.Appendf(b, `\x%02x`, text[0])
		case plain(r):
			b = append(b, text[:size]...)
		default:
			quoted := strconv.AppendQuoteRuneToASCII(nil, r)
			b = append(b, quoted[1:len(quoted)-1]...)
		}
		text = text[size:]
	}
	return string(b)
}
