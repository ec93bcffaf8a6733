// SPDX-License-Identifier: Apache-2.0

//go:build plaincontainer

package container

const plain = true
