//go:build linux

package listen

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"fdkit/internal/hint"
	"fdkit/internal/scm"
)

const (
	maxRuleLine = 4096    // bytes
	maxRuleEnv  = 1024    // bytes of one rule's variables: a payload has room for them, scm.MaxPayload
	maxNetworks = 1 << 20 // in one file, so that no file can fill the memory
)

// RulesError says what is wrong in a text of rules.
type RulesError struct {
	File   string
	Line   int // from 1; 0 for the text as a whole
	Column int // in bytes, from 1
	Err    error
}

func (e *RulesError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("%s:%d:%d: %v", e.File, e.Line, e.Column, e.Err)
}

func (e *RulesError) Unwrap() error { return e.Err }

// ParseRules parses a text of access rules, which errors and logs call name. It is
// either in fdkit's own form, fdkit-listen(1), or the source text of tcprules(1);
// its first rule tells which. It must have a rule.
//
// In tcprules text, the most specific rule decides, and who matches none is allowed,
// as tcpserver(1) has it. Errors are *RulesError.
func ParseRules(name, text string) (*Rules, error) {
	f := rulesText{name: name}
	for line := range strings.SplitSeq(text, "\n") {
		f.line++
		if err := f.add(strings.TrimSuffix(line, "\r")); err != nil {
			err.File, err.Line = name, f.line
			return nil, err
		}
	}
	if len(f.rules) == 0 {
		return nil, &RulesError{File: name, Err: hint.Wrap(errors.New("there is no rule in it"), "allow all is a rule that allows everybody")}
	}
	// tcpserver(1) looks for the longest prefix first, and of two rules with the same
	// address finds the first.
	slices.SortStableFunc(f.rules, func(a, b textRule) int { return cmp.Compare(b.length, a.length) })
	var rules []Rule
	for _, rule := range f.rules {
		rules = append(rules, rule.Rule)
	}
	if f.form == tcprulesForm {
		rules = append(rules, Rule{Who{kind: anybody}, Decision{Allow: true, Where: name}})
	}
	return NewRules(rules), nil
}

type ruleForm int

const (
	noForm ruleForm = iota
	ownForm
	tcprulesForm
)

// textRule is a rule as it stands in a text.
type textRule struct {
	Rule
	length int // of its prefix, where the longest decides; 0 otherwise
}

type rulesText struct {
	name     string
	line     int
	form     ruleForm
	rules    []textRule
	networks int
}

// add parses one line. The error lacks the place of the line.
func (f *rulesText) add(line string) *RulesError {
	if zero := strings.IndexByte(line, 0); zero >= 0 {
		return wrong(zero, hint.Wrap(errors.New("there is a zero byte"), "rules are text; a file that tcprules(1) has made is not, but what it was made of is"))
	}
	if len(line) > maxRuleLine {
		return wrong(maxRuleLine, fmt.Errorf("the line is longer than %d bytes", maxRuleLine))
	}
	line = strings.TrimRight(line, " \t")
	start := len(line) - len(strings.TrimLeft(line, " \t"))
	if line == "" || line[start] == '#' {
		return nil
	}
	form, colon := ownForm, -1
	verb, _ := nextWord(line, start)
	if verb != "allow" && verb != "deny" {
		if colon = instructions(line); colon < 0 {
			return wrong(start, hint.Wrap(fmt.Errorf("%s is no rule", quoted(verb)),
				"a rule is allow WHO, deny WHO, or ADDRESS:allow and ADDRESS:deny of tcprules(1)"))
		}
		form = tcprulesForm
	}
	if f.form != noForm && f.form != form {
		return wrong(start, hint.Wrap(errors.New("this rule has another form than those before it"),
			"a file has rules of fdkit, as allow 192.0.2.1, or of tcprules(1), as 192.0.2.1:allow"))
	}
	f.form = form
	var rule textRule
	var err *RulesError
	if form == ownForm {
		rule.Rule, err = parseRule(line, start)
	} else {
		rule, err = parseTCPRule(line, colon)
	}
	if err != nil {
		return err
	}
	if f.networks += len(rule.Who.networks); f.networks > maxNetworks {
		return wrong(start, fmt.Errorf("there are more than %d networks", maxNetworks))
	}
	rule.Where = fmt.Sprintf("%s:%d", f.name, f.line)
	f.rules = append(f.rules, rule)
	return nil
}

// wrong says what is wrong at the offset of a line.
func wrong(offset int, err error) *RulesError { return &RulesError{Column: offset + 1, Err: err} }

// nextWord returns the word at offset, and the offset of the next one.
func nextWord(line string, offset int) (word string, next int) {
	rest := line[offset:]
	if end := strings.IndexAny(rest, " \t"); end >= 0 {
		word = rest[:end]
	} else {
		word = rest
	}
	rest = strings.TrimLeft(rest[len(word):], " \t")
	return word, len(line) - len(rest)
}

// parseRule parses a rule of fdkit's own form: allow WHO [NAME=VALUE...] or deny WHO.
func parseRule(line string, offset int) (rule Rule, _ *RulesError) {
	verb, offset := nextWord(line, offset)
	rule.Allow = verb == "allow"
	who, next := nextWord(line, offset)
	if who == "" || who[0] == '#' {
		return rule, wrong(offset, hint.Wrap(fmt.Errorf("%s needs a word that says who", verb), whoForms))
	}
	var err error
	if rule.Who, err = ParseWho(who); err != nil {
		return rule, wrong(offset, err)
	}
	var vars variables
	for offset = next; offset < len(line) && line[offset] != '#'; {
		name, _, isVariable := strings.Cut(line[offset:], "=")
		word, _ := nextWord(line, offset)
		switch {
		case !isVariable || len(name) >= len(word):
			return rule, wrong(offset, hint.Wrap(fmt.Errorf("%s is no NAME=VALUE", quoted(word)), "there is one rule in a line"))
		case !rule.Allow:
			return rule, wrong(offset, errors.New("a client who is refused has no variables"))
		case vars.has(name):
			return rule, wrong(offset, fmt.Errorf("%s is set twice", name))
		}
		value, next, err := parseValue(line, offset+len(name)+1)
		if err != nil {
			return rule, err
		}
		if err := vars.set(name, value); err != nil {
			return rule, wrong(offset, err)
		}
		offset = next
	}
	rule.Env = vars.encoded()
	return rule, nil
}

// parseValue parses a variable's value, a word or a text in double quotes, and
// returns the offset of the next word.
func parseValue(line string, offset int) (value string, next int, _ *RulesError) {
	if offset == len(line) || line[offset] != '"' {
		value, next = "", offset
		if offset < len(line) && line[offset] != ' ' && line[offset] != '\t' {
			value, next = nextWord(line, offset)
		} else {
			_, next = nextWord(line, offset)
		}
		if bad := strings.IndexAny(value, `"\`); bad >= 0 {
			return "", 0, wrong(offset+bad, hint.Wrap(fmt.Errorf("%q is in a value without quotes", value[bad]), `such a value is written NAME="...", with \" and \\ in it`))
		}
		return value, next, nil
	}
	var text strings.Builder
	for i := offset + 1; i < len(line); i++ {
		switch c := line[i]; c {
		case '"':
			after, next := nextWord(line, i+1)
			if after != "" {
				return "", 0, wrong(i+1, errors.New("after a closing quote there must be a blank"))
			}
			return text.String(), next, nil
		case '\\':
			if i++; i == len(line) || line[i] != '"' && line[i] != '\\' {
				return "", 0, wrong(i-1, errors.New(`in quotes, \ stands before " and \ only`))
			}
			text.WriteByte(line[i])
		default:
			text.WriteByte(c)
		}
	}
	return "", 0, wrong(offset, errors.New("the closing quote is missing"))
}

// variables are those that one rule sets.
type variables struct {
	list []variable
	size int // of the list as bytes of a payload
}

type variable struct{ name, value string }

func (v *variables) index(name string) int {
	return slices.IndexFunc(v.list, func(set variable) bool { return set.name == name })
}

func (v *variables) has(name string) bool { return v.index(name) >= 0 }

// set sets a variable; the last setting counts, as with tcpserver(1).
func (v *variables) set(name, value string) error {
	switch {
	case !scm.ValidName(name):
		return fmt.Errorf("%s is no variable name", quoted(name))
	case slices.Contains(ownVariables, name):
		return hint.Wrap(fmt.Errorf("%s cannot be set", name), "what describes the connection itself is set by fdkit, fdkit-environ(7)")
	}
	if i := v.index(name); i >= 0 {
		v.size -= len(name) + len(v.list[i].value) + 2
		v.list = slices.Delete(v.list, i, i+1)
	}
	v.list = append(v.list, variable{name, value})
	if v.size += len(name) + len(value) + 2; v.size > maxRuleEnv { // with = and NUL
		return fmt.Errorf("the variables of this rule have more than %d bytes", maxRuleEnv)
	}
	return nil
}

// encoded returns the variables as a part of a payload.
func (v *variables) encoded() (env []byte) {
	for _, set := range v.list {
		env = scm.AppendVar(env, set.name, set.value)
	}
	return env
}

// ownVariables are those that are in the payload already. As the first of a name
// counts, another one would be passed over.
var ownVariables = []string{
	"FDKIT", "FDKIT_ACCEPTED", "PROTO", "REMOTE_ADDR", "REMOTE_PORT",
	"TCPLOCALIP", "TCPLOCALPORT", "TCPREMOTEIP", "TCPREMOTEPORT",
	"UNIXLOCALPATH", "UNIXREMOTEEGID", "UNIXREMOTEEUID", "UNIXREMOTEPATH", "UNIXREMOTEPID",
}
