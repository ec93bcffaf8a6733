// SPDX-License-Identifier: Apache-2.0

// Package cores spreads work over the machine's cores.
package cores

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// Each calls do, which worker makes once for each core, for 0 to n−1, and
// returns when all is done.
func Each(n int, worker func() (do func(i int))) {
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		workers.Go(func() {
			do := worker()
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	workers.Wait()
}
