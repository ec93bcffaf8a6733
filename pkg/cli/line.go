// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"regexp"
	"runtime"
	"strings"
	"unicode"

	"keyferry/pkg/control"
)

// This file writes command lines that people copy.

// Quote is a word as the shell takes it that people type commands into: on
// Windows PowerShell and, but for a word with a sign that one of them reads as its
// own, cmd; elsewhere one of POSIX.
func Quote(word string) string { return quoteFor(runtime.GOOS, word) }

func quoteFor(system, word string) string {
	safe, quote := "/._-+:=@%", `'\''`
	if system == "windows" {
		safe, quote = `\._-+:=`, "''"
	}
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(safe, r)
	}) {
		return word
	}
	if system == "windows" && !strings.ContainsAny(word, "\"“”„$`%^!") {
		return `"` + control.Plain(word) + `"`
	}
	return "'" + strings.ReplaceAll(control.Plain(word), "'", quote) + "'"
}

// Line is a whole command of either program, quoted: with the state directory
// that this run was given, and with --rehearsal in one.
func (o *IO) Line(program string, words ...string) string {
	return o.lineOn(runtime.GOOS, program, words...)
}

func (o *IO) lineOn(system, program string, words ...string) string {
	line := program
	for _, word := range words {
		line += " " + quoteFor(system, word)
	}
	return line + o.where(system, program, line)
}

// where are the flags that a command needs to mean this ceremony.
func (o *IO) where(system, program, line string) (flags string) {
	if program == o.program && o.stateGiven && !strings.Contains(line, "--state") {
		flags += " --state " + quoteFor(system, o.State)
	}
	if (program == "offline" || program == "online") && o.Rehearsal && !strings.Contains(line, "--rehearsal") {
		flags += " --rehearsal"
	}
	return flags
}

// inBackquotes finds the commands in a hint.
var inBackquotes = regexp.MustCompile("`(offline|online) [a-z][^`]*`")

// whole completes the commands that a hint names, so that they mean this
// ceremony when they are typed.
func (o *IO) whole(hint string) string {
	return inBackquotes.ReplaceAllStringFunc(hint, func(command string) string {
		line := strings.Trim(command, "`")
		if strings.HasSuffix(line, "…") || strings.HasSuffix(line, "--help") {
			return command
		}
		program, _, _ := strings.Cut(line, " ")
		return "`" + line + o.where(runtime.GOOS, program, line) + "`"
	})
}
