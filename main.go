// Most of fdkit's time is spent in system calls, and the CPU limits of its cgroup do
// not matter to it. The Go runtime reads them at each start all the same, but does not
// keep the files open then, nor a goroutine that reads them anew.
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
