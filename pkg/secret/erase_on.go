// SPDX-License-Identifier: Apache-2.0

//go:build goexperiment.runtimesecret

package secret

import "runtime/secret"

// Erases reports whether Do erases anything: this program was built with
// GOEXPERIMENT=runtimesecret, which works on Linux with amd64 and arm64.
const Erases = true

// Do runs f and then erases its stack and registers. What f allocated is erased
// as soon as the garbage collector finds that it is not in use any more: so the
// copies that libraries make are reached too, in this goroutine. See
// runtime/secret.
func Do(f func()) { secret.Do(f) }
