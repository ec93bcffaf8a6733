// SPDX-License-Identifier: Apache-2.0

// A program that asks the kernel for a network socket: by the C library, by the
// number that the call has in x32, or by that of 32-bit x86.
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
	if (argc != 2)
		return 2;
	if (!strcmp(argv[1], "socket")) {
		if (socket(AF_INET, SOCK_STREAM, 0) < 0) {
			perror("socket");
			return 1;
		}
		return 0;
	}
	if (!strcmp(argv[1], "x32"))
		return syscall(0x40000000 | SYS_socket, AF_INET, SOCK_STREAM, 0) < 0;
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(359L), "b"(AF_INET), "c"(SOCK_STREAM), "d"(0L) : "memory");
	return result < 0;
}
