// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"keyferry/pkg/control"
)

// Main runs the program with the process's arguments and streams, and returns
// its exit code.
//
// An interrupt, the quit key, a hang-up and a request to end cancel the context;
// a second one ends the process on the spot, as a kill or a power failure may:
// files are there whole or not at all, and the next run goes on. A reader that
// closes its end of the output, such as head, ends nothing. A crash shows no
// memory, and ends as an interrupt does: 2 is for usage, and 3 for the environment.
func (a *App) Main() int {
	debug.SetTraceback("none")
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // writing fails with EPIPE
	signals := make(chan os.Signal, 2)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP} {
		if !signal.Ignored(s) { // as nohup has it
			signal.Notify(signals, s)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan int, 1)
	go func() {
		streams := &IO{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, ownsProcess: true, program: a.Name}
		defer func() {
			if crashed := recover(); crashed != nil {
				ended <- streams.fail(crash(crashed))
			}
		}()
		ended <- a.start(ctx, os.Args[1:], streams)
	}()
	for range 2 {
		select {
		case code := <-ended:
			return code
		case <-signals:
			cancel()
		}
	}
	return int(control.Interrupted.Class)
}

// crash is the error of a panic: where it was, and its text if Go itself wrote
// that, since another may hold a secret.
func crash(crashed any) error {
	what := fmt.Sprintf("%T", crashed)
	if err, ok := crashed.(runtime.Error); ok {
		what = err.Error()
	}
	callers := make([]uintptr, 16)
	frames := runtime.CallersFrames(callers[:runtime.Callers(3, callers)])
	for frame, more := frames.Next(); more; frame, more = frames.Next() {
		if !strings.HasPrefix(frame.Function, "runtime.") {
			what += fmt.Sprintf(" in %s, line %d", frame.Function, frame.Line)
			break
		}
	}
	return control.Interrupted.Refuse("the program failed: %s", what).
		WithHint("this is a flaw of the program: report the line above; run the same command again to go on")
}
