//go:build linux

package main

import (
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed c/*.c
var sources embed.FS

// freestanding is for programs that have no C library.
var freestanding = []string{"-nostdlib", "-ffreestanding", "-fno-stack-protector"}

// compile compiles the C program of that name, and returns its path.
func (b *bench) compile(name string, options ...string) (string, error) {
	path := filepath.Join(b.dir, name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	text, err := sources.ReadFile("c/" + name + ".c")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(path+".c", text, 0o666); err != nil {
		return "", err
	}
	options = append([]string{"-O2", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-static", "-o", path, path + ".c"}, options...)
	out, err := exec.Command("gcc", options...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("gcc %s.c: %w\n%s", name, err, out)
	}
	return path, nil
}
