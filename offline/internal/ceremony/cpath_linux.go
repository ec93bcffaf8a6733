// SPDX-License-Identifier: Apache-2.0

package ceremony

// cPath is a path as a C library opens it.
func cPath(path string) string { return path }
