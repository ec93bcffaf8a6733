// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"testing"

	"keyferry/test/scripttest"
	"keyferry/test/testbin"
)

func TestMain(m *testing.M) { os.Exit(testbin.Main(m)) }

func TestScripts(t *testing.T) { scripttest.Run(t, "T") }

func TestScriptsCoverCommands(t *testing.T) {
	for _, c := range app.Commands {
		scripttest.Covers(t, app.Name+" "+c.Name)
	}
}
