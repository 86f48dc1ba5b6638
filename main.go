// Most of fdkit's time is spent in system calls. Reading the CPU limits of the
// cgroup would cost each start some ten more, and two descriptors.
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Fdkit passes file descriptors between programs, through shell pipes and Unix
// sockets: see fdkit(1).
package main

import (
	"os"

	"fdkit/cmd"
)

// version is set when a release is built.
var version = "0.1.0-dev"

func main() {
	os.Exit(cmd.Run(cmd.New(version, os.Args...), os.Args))
}
