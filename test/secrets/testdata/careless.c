// SPDX-License-Identifier: Apache-2.0

// A library that frees memory with something in it. What that is does not stand
// in the library itself.
#include <stdlib.h>

void *kept;

static void forget(size_t size) {
	volatile unsigned char *memory = malloc(size);
	for (size_t i = 0; i < size; i++) memory[i] = i * 37 ^ size;
	kept = malloc(64); // so that the piece stays one
	free((void *)memory);
}

__attribute__((constructor)) static void load(void) {
	forget(200); // glibc keeps a small piece for the thread that freed it
	forget(30000);
}
