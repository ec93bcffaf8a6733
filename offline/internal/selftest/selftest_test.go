// SPDX-License-Identifier: Apache-2.0

package selftest

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"keyferry/pkg/control"
)

func TestRun(t *testing.T) {
	names, err := Run()
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != 10 {
		t.Errorf("asked %q", names)
	}
}

// Each answer that is wrong by one bit is refused, and by nothing but it.
func TestWrongAnswer(t *testing.T) {
	for i, q := range questions() {
		for _, bit := range []int{0, 8*len(q.answer) - 1} {
			all := questions()
			wrong := slices.Clone(q.answer)
			wrong[bit/8] ^= 1 << (bit % 8)
			all[i].answer = wrong
			names, err := ask(all)
			if !control.Is(err, control.SelfTest) || !strings.Contains(err.Error(), q.name) || names != nil {
				t.Errorf("%s, bit %d: got %q, %v", q.name, bit, names, err)
			}
		}
	}
}

// A question about the sample is refused where the sample was not decrypted.
func TestNoSample(t *testing.T) {
	for _, q := range questions() {
		if q.name != "RSA-OAEP" && q.name != "XrML signatures" {
			continue
		}
		if _, err := ask([]question{q}); !control.Is(err, control.SelfTest) || !errors.Is(err, errNoSample) {
			t.Errorf("%s: got %v", q.name, err)
		}
	}
}

// What can't be computed is refused.
func TestFailure(t *testing.T) {
	cause := errors.New("broken")
	names, err := ask([]question{
		{"good", []byte("x"), func() ([]byte, error) { return []byte("x"), nil }},
		{"bad", []byte("x"), func() ([]byte, error) { return []byte("x"), cause }},
	})
	if !control.Is(err, control.SelfTest) || !errors.Is(err, cause) || names != nil {
		t.Errorf("got %q, %v", names, err)
	}
}

func BenchmarkRun(b *testing.B) {
	for b.Loop() {
		if _, err := Run(); err != nil {
			b.Fatal(err)
		}
	}
}
