//go:build linux

package cmd_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestBalance holds that the table in fdkit-pool(1) has the figures that make bench has
// measured. UPDATE=1 writes it.
func TestBalance(t *testing.T) {
	const page, begin, end = "../man/fdkit-pool.1", ".\\\" From scripts/bench/results/balance.md", ".\\\" The end of the table.\n"
	measured, err := os.ReadFile("../scripts/bench/results/balance.md")
	if err != nil {
		t.Fatal(err)
	}
	var tables [][][]string // rows with their cells, names first
	for line := range strings.Lines(string(measured)) {
		if strings.HasPrefix(line, "## ") {
			tables = append(tables, nil)
		}
		if !strings.HasPrefix(line, "| ") || len(tables) == 0 || strings.HasPrefix(line, "| |") {
			continue
		}
		cells := strings.Split(strings.ReplaceAll(strings.Trim(line, "| \n"), `\|`, "\x00"), " | ")
		name := strings.ReplaceAll(cells[0], "\x00", "|")
		cells[0] = strings.TrimPrefix(name, "fdkit listen | fdkit ")
		tables[len(tables)-1] = append(tables[len(tables)-1], cells)
	}
	if len(tables) != 2 || len(tables[0]) != len(tables[1]) || len(tables[0]) < 6 {
		t.Fatalf("balance.md has the tables %q, want two of the same rows", tables)
	}
	var want strings.Builder
	for i, shares := range tables[0] {
		// Names, stopped: p99, p99.9, ratio, hang, slow: p99, p99.9, ratio, longest.
		tail := tables[1][i]
		fmt.Fprintf(&want, ".It %s Ta %s Ta %s Ta %s Ta %s Ta %s\n", shares[0], shares[1], shares[2], shares[3], tail[2], tail[6])
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), begin)
	comment, rest, _ := strings.Cut(rest, "\n")
	table, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no place for the table", page)
	}
	switch {
	case table == want.String():
	case os.Getenv("UPDATE") != "":
		if err := os.WriteFile(page, []byte(before+begin+comment+"\n"+want.String()+end+after), 0o666); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s has the table\n%s\nwant\n%s\nUPDATE=1 writes it", page, table, want.String())
	}
}
