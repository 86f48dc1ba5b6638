//go:build linux && !amd64 && !arm64

package exec

// spawner starts programs, always the same one.
type spawner struct {
	program *Program
	confine *Confinement
}

func newSpawner(p *Program, confine *Confinement) (*spawner, error) {
	return &spawner{p, confine}, nil
}

// spawn starts the program with fd at 0 and 1, in a process group of its own.
func (s *spawner) spawn(fd int, env *envBlock) (pid int, err error) {
	return s.spawnAt(fd, []int{0, 1}, env)
}

// spawnAt starts the program with fd at the places, none of which is fd.
func (s *spawner) spawnAt(fd int, places []int, env *envBlock) (pid int, err error) {
	return forkExec(s.program, s.confine, fd, places, env.strings())
}

// try returns the error that spawn would have each time.
func (s *spawner) try() error {
	if !s.confine.plain() {
		return errConfine
	}
	return nil
}
