// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"context"
	"sync"
	"time"

	"keyferry/pkg/cli"
)

// patience is for how many seconds an HSM may be silent before a person is told.
const patience = 5

// watch returns what is to be told each step of the HSM, empty at the end. A call to a
// module can't be broken off: a person who waits is told of the step, and a first
// interrupt is answered.
func watch(ctx context.Context, io *cli.IO) func(step string) {
	var mu sync.Mutex
	var step string
	var since time.Time
	waits := func() (string, time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		return step, time.Since(since)
	}
	go func() {
		for range time.Tick(time.Second) {
			step, waited := waits()
			if seconds := int(waited.Round(time.Second).Seconds()); step != "" && seconds > 0 && seconds%patience == 0 {
				io.Note("waiting for the HSM since %d s, to %s", seconds, step)
			}
		}
	}()
	context.AfterFunc(ctx, func() {
		if step, _ := waits(); step != "" {
			io.Note("interrupted: the run stops when the HSM has answered; a second interrupt ends it at once, and the same command goes on later")
		}
	})
	return func(name string) {
		mu.Lock()
		defer mu.Unlock()
		step, since = name, time.Now()
	}
}
