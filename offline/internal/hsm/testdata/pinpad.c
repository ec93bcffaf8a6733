// SPDX-License-Identifier: Apache-2.0

// A PKCS#11 module with a PIN pad: SoftHSM, named by KEYFERRY_TEST_MODULE, whose
// tokens say that they have one, take no PIN from the program, and get
// KEYFERRY_TEST_PIN from the person.
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long ulong_t;
struct list {
	unsigned char version[2];
	void *call[68];
};
enum { GET_FUNCTION_LIST = 3, GET_TOKEN_INFO = 6, LOGIN = 18 };
enum { FLAGS_OFFSET = 32 + 32 + 16 + 16, PROTECTED_AUTHENTICATION_PATH = 0x100, ARGUMENTS_BAD = 7 };

static struct list real, ours;

static ulong_t get_token_info(ulong_t slot, unsigned char *info) {
	ulong_t rv = ((ulong_t(*)(ulong_t, unsigned char *))real.call[GET_TOKEN_INFO])(slot, info);
	ulong_t flags;
	memcpy(&flags, info + FLAGS_OFFSET, sizeof flags);
	flags |= PROTECTED_AUTHENTICATION_PATH;
	memcpy(info + FLAGS_OFFSET, &flags, sizeof flags);
	return rv;
}

static ulong_t login(ulong_t session, ulong_t user, const char *pin, ulong_t length) {
	if (pin != NULL || length != 0) return ARGUMENTS_BAD;
	const char *entered = getenv("KEYFERRY_TEST_PIN");
	return ((ulong_t(*)(ulong_t, ulong_t, const char *, ulong_t))real.call[LOGIN])(session, user, entered, strlen(entered));
}

ulong_t C_GetFunctionList(struct list **out) {
	void *module = dlopen(getenv("KEYFERRY_TEST_MODULE"), RTLD_NOW);
	struct list *found;
	ulong_t (*get)(struct list **) = module == NULL ? NULL : (ulong_t(*)(struct list **))dlsym(module, "C_GetFunctionList");
	if (get == NULL || get(&found) != 0) return ARGUMENTS_BAD;
	real = ours = *found;
	ours.call[GET_FUNCTION_LIST] = C_GetFunctionList;
	ours.call[GET_TOKEN_INFO] = get_token_info;
	ours.call[LOGIN] = login;
	*out = &ours;
	return 0;
}
