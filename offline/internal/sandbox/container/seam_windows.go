// SPDX-License-Identifier: Apache-2.0

//go:build !plaincontainer

package container

// plain has a test, on a system without containers, play with a plain process in
// the place of the container. No release is built with the tag.
const plain = false
