// SPDX-License-Identifier: Apache-2.0

//go:build !goexperiment.runtimesecret

package secret

// Erases reports whether Do erases anything.
const Erases = false

// Do runs f: the toolchain has no runtime/secret.
func Do(f func()) { f() }
