// SPDX-License-Identifier: Apache-2.0

// A program that tries what a PKCS#11 module must not: it makes the one attempt
// that its argument names, and says how that ended. The arguments of a call do
// no harm where the kernel lets it through.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_clone3
#define SYS_clone3 435
#endif

// Calls that fail for their arguments alone, if they get that far.
static const struct {
	const char *name;
	long number;
	long first, second, third;
} calls[] = {
	{"init_module", SYS_init_module, 0, 0, 0},
	{"finit_module", SYS_finit_module, -1, 0, 0},
	{"delete_module", SYS_delete_module, 0, 0, 0},
	{"bpf", SYS_bpf, -1, 0, 0},
	{"kexec_load", SYS_kexec_load, 0, -1, 0},
	{"kexec_file_load", SYS_kexec_file_load, -1, -1, 0},
	{"setns", SYS_setns, -1, 0, 0},
	{"unshare", SYS_unshare, CLONE_NEWUTS | CLONE_NEWUSER, 0, 0},
	{"chroot", SYS_chroot, 0, 0, 0},
	{"pivot_root", SYS_pivot_root, 0, 0, 0},
	{"mount", SYS_mount, 0, 0, 0},
	{"umount2", SYS_umount2, 0, 0, 0},
	{"move_mount", SYS_move_mount, -1, 0, -1},
	{"open_tree", SYS_open_tree, -1, 0, 0},
	{"fsopen", SYS_fsopen, 0, 0, 0},
	{"fsmount", SYS_fsmount, -1, 0, 0},
	{"perf_event_open", SYS_perf_event_open, 0, 0, 0},
	{"process_vm_readv", SYS_process_vm_readv, -1, 0, 0},
	{"open_by_handle_at", SYS_open_by_handle_at, -1, 0, 0},
	{"reboot", SYS_reboot, 0, 0, 0},
	{"swapon", SYS_swapon, 0, 0, 0},
	{"settimeofday", SYS_settimeofday, -1, 0, 0},
	{"clock_settime", SYS_clock_settime, -1, 0, 0},
	{"clone3", SYS_clone3, 0, 0, 0},
};

static int said(const char *name, long result) {
	if (result < 0) {
		perror(name);
		return 1;
	}
	puts("did");
	return 0;
}

int main(int argc, char **argv) {
	if (argc != 2)
		return 2;
	const char *name = argv[1];
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		if (!strcmp(name, calls[i].name))
			return said(name, syscall(calls[i].number, calls[i].first, calls[i].second, calls[i].third, 0, 0));
	if (!strcmp(name, "TIOCSTI"))
		return said(name, ioctl(0, TIOCSTI, "\n"));
	if (!strcmp(name, "TIOCSTI with high bits"))
		return said(name, syscall(SYS_ioctl, 0, 0x100000000L | TIOCSTI, "\n"));
	if (!strcmp(name, "TIOCLINUX"))
		return said(name, ioctl(0, TIOCLINUX, "\3"));
	if (!strcmp(name, "clone into a namespace")) {
		long pid = syscall(SYS_clone, CLONE_NEWUTS, 0, 0, 0, 0);
		if (pid == 0)
			_exit(0);
		return said(name, pid);
	}
	if (!strcmp(name, "device ioctl")) { // of a terminal's master, which nobody named
		int number;
		return said(name, ioctl(open("/dev/ptmx", O_RDONLY | O_NOCTTY), TIOCGPTN, &number));
	}
	if (!strcmp(name, "socket"))
		return said(name, socket(AF_INET, SOCK_STREAM, 0));
#ifdef __x86_64__
	if (!strcmp(name, "x32")) // the call's number there
		return syscall(0x40000000 | SYS_socket, AF_INET, SOCK_STREAM, 0) < 0;
	if (!strcmp(name, "i386")) {
		long result;
		__asm__ volatile("int $0x80" : "=a"(result) : "a"(359L), "b"(AF_INET), "c"(SOCK_STREAM), "d"(0L) : "memory");
		return result < 0;
	}
#endif
	return 2;
}
