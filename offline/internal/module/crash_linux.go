// SPDX-License-Identifier: Apache-2.0

package module

// A module that crashes takes the process with it. Go's runtime would print the
// registers, which may hold a key, and end with the exit code of wrong usage. It
// leaves a signal that comes out of C code to whoever had it before Go: so this
// handler is there first, says one line and ends as an
// interrupt does. Of an abort, which is no fault of memory, Go lets go: it ends the
// process by its signal.

/*
#include <signal.h>
#include <string.h>
#include <unistd.h>

static void crashed(int number, siginfo_t *info, void *context) {
	static const char line[] = "offline: error: the PKCS#11 module crashed [KF-RUN-INTERRUPTED]\n"
		"offline: hint: run the same command again to go on; if it crashes again, offline doctor\n"
		"offline: hint: --hsm-outside-sandbox tells whether it misses what the sandbox forbids;\n"
		"offline: hint: else report it to the maker of the module\n";
	(void)!write(2, line, sizeof line - 1);
	_exit(4);
}

__attribute__((constructor)) static void before_go(void) {
	struct sigaction action;
	memset(&action, 0, sizeof action);
	action.sa_sigaction = crashed;
	action.sa_flags = SA_SIGINFO | SA_ONSTACK;
	int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		sigaction(numbers[i], &action, NULL);
}
*/
import "C"

import (
	"os/signal"
	"syscall"
)

func init() { signal.Ignore(syscall.SIGABRT) }
