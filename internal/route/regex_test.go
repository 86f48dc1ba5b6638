package route

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// What is decided stays so, whatever follows.
func TestDecided(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(parts ...string) string { return parts[random.IntN(len(parts))] }
	var some func(depth int) string
	some = func(depth int) string {
		if depth == 0 {
			return pick("a", "b", "é", ".", "[^a]", "^", "$", `\b`, `\B`, "(?m:^)", "(?m:$)", `\z`, "")
		}
		switch random.IntN(5) {
		case 0:
			return "(" + some(depth-1) + ")"
		case 1:
			return "(?:" + some(depth-1) + ")" + pick("*", "+", "?", "*?", "+?", "??", "{2}")
		case 2:
			return "(?:" + some(depth-1) + "|" + some(depth-1) + ")"
		}
		return some(depth-1) + some(depth-1)
	}
	var texts []string // all of up to 2 of these letters
	for level := []string{""}; len(level[0]) < 3; {
		texts = append(texts, level...)
		var next []string
		for _, text := range level {
			for _, c := range []string{"a", "b", "\n", "\xc3", "\xa9"} {
				next = append(next, text+c)
			}
		}
		level = next
	}
	decided, open := 0, 0
	for range 2000 {
		text := pick("", "^") + some(4)
		e, err := parseExpression(text)
		if err != nil {
			continue
		}
		data := texts[random.IntN(len(texts))]
		isDecided := e.decided([]byte(data))
		want := e.FindStringSubmatchIndex(data)
		changes := false
		for _, more := range texts {
			if got := e.FindStringSubmatchIndex(data + more); !slices.Equal(got, want) {
				changes = true
				if isDecided {
					t.Fatalf("%q is decided for %q, with the match %v; with %q behind it is %v", data, text, want, more, got)
				}
			}
		}
		switch {
		case isDecided:
			decided++
		case changes:
			open++
		}
	}
	if decided < 200 || open < 200 {
		t.Errorf("%d were decided, and %d open; want many of both", decided, open)
	}
}

func BenchmarkDecided(b *testing.B) {
	e, err := parseExpression("[a-z]+ (x+x+)+y")
	if err != nil {
		b.Fatal(err)
	}
	data := []byte("abc " + strings.Repeat("x", 4000))
	for b.Loop() {
		e.decided(data)
	}
}
