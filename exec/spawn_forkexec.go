//go:build linux && !amd64 && !arm64

package exec

// spawner starts programs, always the same one.
type spawner struct{ program *Program }

func newSpawner(p *Program) (*spawner, error) {
	return &spawner{p}, nil
}

// spawn starts the program with fd at 0 and 1, in a process group of its own.
func (s *spawner) spawn(fd int, env *envBlock) (pid int, err error) {
	return forkExec(s.program, fd, env.strings())
}
