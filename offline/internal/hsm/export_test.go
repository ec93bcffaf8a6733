// SPDX-License-Identifier: Apache-2.0

package hsm

// What hsm_test has of these tests: it tests what stands on this package.
var (
	BenchToken = benchToken
	Beside     = beside
	NewToken   = newToken
	OpenToken  = openToken
	Refused    = refused
)
