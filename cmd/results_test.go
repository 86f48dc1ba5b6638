//go:build linux

package cmd_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestResults holds that the tables of figures in the README and in the manual pages
// have what make bench and make chaos have measured last. UPDATE=1 writes them.
func TestResults(t *testing.T) {
	for _, place := range []struct {
		file  string
		begin string // what is before the table, and behind it
		end   string
		table func(t *testing.T) string
	}{
		{"../man/fdkit-pool.1", ".\\\" From scripts/bench/results/balance.md", ".\\\" The end of the table.\n", balanceTable},
		{"../README.md", "<!-- From scripts/bench/results/spawn.md", "<!-- The end of the table. -->\n", spawnTable},
		{"../README.md", "<!-- From scripts/bench/results/handover.md", "<!-- The end of the table. -->\n", handoverTable},
		{"../README.md", "<!-- From scripts/chaos/results.md", "<!-- The end of the table. -->\n", faultsTable},
	} {
		text, err := os.ReadFile(place.file)
		if err != nil {
			t.Fatal(err)
		}
		before, rest, found := strings.Cut(string(text), place.begin)
		comment, rest, _ := strings.Cut(rest, "\n")
		table, after, ended := strings.Cut(rest, place.end)
		if !found || !ended {
			t.Fatalf("%s has no place for a table: %s", place.file, place.begin)
		}
		switch want := place.table(t); {
		case table == want:
		case os.Getenv("UPDATE") != "":
			if err := os.WriteFile(place.file, []byte(before+place.begin+comment+"\n"+want+place.end+after), 0o666); err != nil {
				t.Fatal(err)
			}
		default:
			t.Errorf("%s has the table\n%s\nwant\n%s\nUPDATE=1 writes it", place.file, table, want)
		}
	}
}

// A resultTable is one table of a file of results.
type resultTable struct {
	columns []string
	rows    [][]string // the name first; all have a cell for each column
}

// resultTables reads the tables of a file: so many at least, all with the same rows.
func resultTables(t *testing.T, file string, least int) []resultTable {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var tables []resultTable
	within := false
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "|") {
			within = false
			continue
		}
		line = strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(line, "|"), "|\n"), `\|`, "\x00")
		cells := strings.Split(line, "|")
		for i := range cells {
			cells[i] = strings.ReplaceAll(strings.TrimSpace(cells[i]), "\x00", `\|`)
		}
		if !within {
			tables = append(tables, resultTable{columns: cells})
			within = true
			continue
		}
		last := &tables[len(tables)-1]
		if len(cells) != len(last.columns) {
			t.Fatalf("%s has the row %q, want %d cells", file, cells, len(last.columns))
		}
		if !strings.HasPrefix(cells[0], ":-") && !strings.HasPrefix(cells[0], "--") {
			last.rows = append(last.rows, cells)
		}
	}
	if len(tables) < least || len(tables[0].rows) == 0 {
		t.Fatalf("%s has %d tables, want %d with rows", file, len(tables), least)
	}
	for _, table := range tables[1:least] {
		if len(table.rows) != len(tables[0].rows) {
			t.Fatalf("%s has tables of %d and %d rows, want the same", file, len(tables[0].rows), len(table.rows))
		}
	}
	return tables
}

// cell returns what row r has in a column, or in the column of ratios behind it. Of a
// ratio that is the median.
func (table resultTable) cell(t *testing.T, r int, column string, ratio bool) string {
	t.Helper()
	i := slices.Index(table.columns, column)
	if i < 0 {
		t.Fatalf("the columns are %q, want %q among them", table.columns, column)
	}
	if !ratio {
		return table.rows[r][i]
	}
	if table.columns[i+1] != "ratio" {
		t.Fatalf("behind %q is %q, want a ratio", column, table.columns[i+1])
	}
	median, _, _ := strings.Cut(table.rows[r][i+1], " (")
	return median
}

// balanceTable is that of fdkit-pool(1): shares, then tails.
func balanceTable(t *testing.T) string {
	tables := resultTables(t, "../scripts/bench/results/balance.md", 2)
	var text strings.Builder
	for i, row := range tables[0].rows {
		name := strings.TrimPrefix(strings.ReplaceAll(row[0], `\|`, "|"), "fdkit listen | fdkit ")
		fmt.Fprintf(&text, ".It %s Ta %s Ta %s Ta %s Ta %s Ta %s\n", name, row[1], row[2], row[3],
			tables[1].cell(t, i, "stopped, p99.9, ms", false), tables[1].cell(t, i, "slow, p99.9, ms", false))
	}
	return text.String()
}

// spawnTable is that of one program per connection: the tables of the program that echoes
// a line, for many clients and for one.
func spawnTable(t *testing.T) string {
	tables := resultTables(t, "../scripts/bench/results/spawn.md", 2)
	return speedTable(t, "One program per connection", "32 clients", tables)
}

// handoverTable is that of workers that stay.
func handoverTable(t *testing.T) string {
	tables := resultTables(t, "../scripts/bench/results/handover.md", 2)
	return speedTable(t, "Workers that stay", "64 clients", tables)
}

// speedTable puts the tables of many clients and of one beside each other.
func speedTable(t *testing.T, title, many string, tables []resultTable) string {
	const rate, cpu, time = "connections, 1/s", "server CPU, ms per 1000", "p50, µs"
	var text strings.Builder
	fmt.Fprintf(&text, "| %s | %s: 1/s | ratio | server CPU | 1 client: %s | ratio | server CPU |\n", title, many, time)
	text.WriteString("| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for i, row := range tables[0].rows {
		if row[len(row)-1] == "" { // not measured, with the cause in the first cell
			continue
		}
		fmt.Fprintf(&text, "| %s | %s | %s | %s | %s | %s | %s |\n", row[0],
			tables[0].cell(t, i, rate, false), tables[0].cell(t, i, rate, true), tables[0].cell(t, i, cpu, true),
			tables[1].cell(t, i, time, false), tables[1].cell(t, i, time, true), tables[1].cell(t, i, cpu, true))
	}
	return text.String()
}

// faultsTable is that of the faults. What is expected of each is in the file.
func faultsTable(t *testing.T) string {
	table := resultTables(t, "../scripts/chaos/results.md", 1)[0]
	columns := []string{"what was done", "faults", "connections", "refused", "reset", "lost", "duplicated", "cut"}
	var text strings.Builder
	fmt.Fprintf(&text, "| %s |\n| ---%s |\n", strings.Join(columns, " | "), strings.Repeat(" | ---:", len(columns)-1))
	for i, row := range table.rows {
		if ok := table.cell(t, i, "ok", false); ok != "yes" {
			t.Errorf("the case %q is not as expected", row[0])
		}
		text.WriteString("|")
		for _, column := range columns {
			fmt.Fprintf(&text, " %s |", table.cell(t, i, column, false))
		}
		text.WriteString("\n")
	}
	return text.String()
}
