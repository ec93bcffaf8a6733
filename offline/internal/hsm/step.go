// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"sync"
	"time"

	"keyferry/pkg/control"
)

// patience is how long a token may be silent before a person is told.
var patience = 5 * time.Second

// step is what is being done with the token, for a person who waits: a token may
// take its time, and a call to its module can't be broken off.
type step struct {
	cfg   *Config
	mu    sync.Mutex
	name  string
	since time.Time
	once  sync.Once
	done  chan struct{}
}

// watch starts to watch the steps of a run.
func watch(cfg *Config) *step {
	s := &step{cfg: cfg, name: "log in", since: time.Now(), done: make(chan struct{})}
	if cfg.Tell == nil {
		return s
	}
	var interrupted <-chan struct{}
	if cfg.Context != nil {
		interrupted = cfg.Context.Done()
	}
	go func() {
		ticks := time.NewTicker(patience)
		defer ticks.Stop()
		for {
			select {
			case <-s.done:
				return
			case <-interrupted:
				interrupted = nil
				cfg.tell("interrupted: the run stops when the HSM has answered; a second interrupt ends it at once, and the same command goes on later")
			case <-ticks.C:
				s.mu.Lock()
				name, since := s.name, s.since
				s.mu.Unlock()
				if waited := time.Since(since); waited >= patience {
					cfg.tell("waiting for the HSM since %d s, to %s", int(waited.Seconds()), name)
				}
			}
		}
	}()
	return s
}

func (s *step) end() { s.once.Do(func() { close(s.done) }) }

// next says what is done next.
func (t *Token) next(name string) {
	if t.step == nil {
		return
	}
	t.step.mu.Lock()
	defer t.step.mu.Unlock()
	t.step.name, t.step.since = name, time.Now()
}

// interrupted refuses to begin something where the run was interrupted. What is
// begun is brought to its end, or taken back.
func (t *Token) interrupted() error {
	if t.step == nil || t.step.cfg.Context == nil || t.step.cfg.Context.Err() == nil {
		return nil
	}
	return control.Interrupted.Refuse("interrupted before the next step in the HSM")
}
