// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"keyferry/pkg/control"
)

func confirms(stdin string, questions ...string) program {
	p := does(func(io *IO) error {
		for _, q := range questions {
			if err := io.Confirm(q); err != nil {
				return err
			}
		}
		return nil
	})
	p.stdin = stdin
	return p
}

func TestConfirm(t *testing.T) {
	for _, yes := range []string{"Yes\n", "Yes\r\n", "Yes", "Yes\nNo\n"} {
		got := confirms(yes, "Really?").run(t, "test")
		got.done(t, "")
		if got.stderr != "offline: Really?\noffline: answer Yes to go on: " {
			t.Errorf("stderr: %q", got.stderr)
		}
	}
	for _, no := range []string{"yes\n", "YES\n", "Y\n", "y\n", " Yes\n", "Yes \n", "Yes!\n", "No\n", "No", "\n", "\nYes\n", "Yesterday\n", "Yes\x00\n", strings.Repeat("Yes", 1000)} {
		confirms(no, "Really?").run(t, "test").refusedBy(t, control.NotConfirmed)
	}
	confirms("", "Really?").run(t, "test").refusedBy(t, control.NoTerminal, "nobody is there to answer: Really?")
	confirms("", "Really?").run(t, "test", "--yes").done(t, "")
	confirms("No\n", "Really?").run(t, "test", "--yes=false").refusedBy(t, control.NotConfirmed)
}

// Each question takes its own line, also from a pipe.
func TestConfirmTwice(t *testing.T) {
	confirms("Yes\nYes\n", "One?", "Two?").run(t, "test").done(t, "")
	confirms("Yes\nNo\n", "One?", "Two?").run(t, "test").refusedBy(t, control.NotConfirmed)
	confirms("Yes\n", "One?", "Two?").run(t, "test").refusedBy(t, control.NoTerminal, "Two?")
}

// An answer that never ends is read no further than any answer is long.
func TestConfirmEndlessAnswer(t *testing.T) {
	o := &IO{program: "offline", stdin: endless{}, stderr: io.Discard}
	if err := o.Confirm("Really?"); !control.Is(err, control.NotConfirmed) {
		t.Errorf("got %v, want %s", err, control.NotConfirmed.ID)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return copy(b, "x"), nil }

// An interrupt ends the wait for an answer that nobody gives.
func TestConfirmInterrupted(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	p := does(func(io *IO) error {
		interrupt()
		return io.Confirm("Really?")
	})
	r, w := io.Pipe()
	defer w.Close()
	var stderr bytes.Buffer
	t.Setenv("KEYFERRY_STATE", "/state")
	code := testApp(p.setup).Run(ctx, []string{"test"}, r, io.Discard, &stderr)
	outcome{code, "", stderr.String()}.refusedBy(t, control.Interrupted)
}

func TestRefusalsOfAJoin(t *testing.T) {
	a, b := control.TPDPassword.Refuse("a"), control.DiskFull.Refuse("b")
	got := Refusals(errors.Join(errors.Join(a), nil, errors.Join(b, io.EOF)))
	if len(got) != 3 || got[0] != a || got[1] != b || got[2].Control.ID != control.MachineFailed.ID {
		t.Errorf("got %v", got)
	}
}
