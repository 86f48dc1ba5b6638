package route

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"unicode/utf8"
)

// expression is a regular expression that is looked for in a stream.
type expression struct {
	*regexp.Regexp
	prog *syntax.Prog // the same
}

func parseExpression(text string) (*expression, error) {
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, err
	}
	parsed, err := syntax.Parse(text, syntax.Perl) // as Compile does
	if err != nil {
		return nil, err
	}
	prog, err := syntax.Compile(parsed.Simplify())
	return &expression{re, prog}, err
}

// findExpression finds what the first group of the expression has matched, or the whole
// of it if there is no group.
func findExpression(b *By, data []byte, final bool) (string, int, Verdict) {
	if !final && !b.expression.decided(data) {
		return "", 0, More
	}
	m := b.expression.FindSubmatchIndex(data)
	group := min(b.expression.NumSubexp(), 1)
	if m == nil || m[2*group] < 0 {
		return "", 0, None
	}
	return string(data[m[2*group]:m[2*group+1]]), m[1], Found
}

// decided tells whether no bytes that may follow can change what the expression matches.
// That a match ends before the data does is not enough: of "ab", a(.*c)? matches "a", and
// of "abc" all. And to wait until package regexp asks for no more is too long: it reads
// ahead, and a client may send nothing more before it has an answer.
//
// So this runs the program of the expression as package regexp does, with a list of
// threads by priority (https://swtch.com/~rsc/regexp/regexp2.html), only to see whether
// any are left that come before the match.
func (e *expression) decided(data []byte) bool {
	t := threads{prog: e.prog, seen: make([]int, len(e.prog.Inst))}
	anchored := e.prog.StartCond()&syntax.EmptyBeginText != 0
	var starts []uint32
	before, matched := rune(-1), false
	for pos := 0; ; {
		t.turn++
		t.live = t.live[:0]
		next, size := utf8.DecodeRune(data[pos:])
		t.end = !utf8.FullRune(data[pos:])
		t.context = syntax.EmptyOpContext(before, next)
		if !matched && (pos == 0 || !anchored) {
			starts = append(starts, uint32(e.prog.Start)) // looked for from here, too
		}
		if slices.ContainsFunc(starts, t.follow) {
			matched = true
		}
		if len(t.live) == 0 && (matched || anchored) {
			return true
		}
		if t.end {
			return false
		}
		starts = starts[:0]
		for _, pc := range t.live {
			if t.prog.Inst[pc].MatchRune(next) {
				starts = append(starts, t.prog.Inst[pc].Out)
			}
		}
		pos, before = pos+size, next
	}
}

// threads are those at one place of the data.
type threads struct {
	prog    *syntax.Prog
	turn    int
	seen    []int // by instruction, the last turn when a thread came to it
	end     bool  // what comes here is not known yet
	context syntax.EmptyOp
	live    []uint32 // instructions that wait for what comes here, by priority
}

// follow follows a thread until it needs what comes here. It returns true if it has
// matched: then those of lower priority do not count.
func (t *threads) follow(pc uint32) (matched bool) {
	if t.seen[pc] == t.turn {
		return false
	}
	t.seen[pc] = t.turn
	in := &t.prog.Inst[pc]
	switch in.Op {
	case syntax.InstMatch:
		return true
	case syntax.InstFail:
		return false
	case syntax.InstAlt, syntax.InstAltMatch:
		return t.follow(in.Out) || t.follow(in.Arg)
	case syntax.InstCapture, syntax.InstNop:
		return t.follow(in.Out)
	case syntax.InstEmptyWidth:
		asked := syntax.EmptyOp(in.Arg)
		if !t.end || asked&^(syntax.EmptyBeginLine|syntax.EmptyBeginText) == 0 {
			return asked&^t.context == 0 && t.follow(in.Out)
		}
	}
	t.live = append(t.live, pc)
	return false
}
