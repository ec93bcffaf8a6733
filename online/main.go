// SPDX-License-Identifier: Apache-2.0

package main

import "os"

func main() { os.Exit(app.Main()) }
