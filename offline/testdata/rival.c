// SPDX-License-Identifier: Apache-2.0

// A PKCS#11 module in trouble: another one, named by KEYFERRY_TEST_MODULE. While
// KEYFERRY_TEST_RIVAL is set, another program stores each key that is stored,
// under the same name and at the same time. While KEYFERRY_TEST_FROZEN is set, an
// attribute can be changed once: that of a throw-away key.
#include <dlfcn.h>
#include <stdlib.h>

typedef unsigned long ulong_t;
struct list {
	unsigned char version[2];
	void *call[68];
};
enum { GET_FUNCTION_LIST = 3, COPY_OBJECT = 21, SET_ATTRIBUTE_VALUE = 25, ARGUMENTS_BAD = 7, ATTRIBUTE_READ_ONLY = 0x10 };

static struct list real, ours;

typedef ulong_t (*copy_t)(ulong_t session, ulong_t object, void *template, ulong_t count, ulong_t *copy);

static ulong_t copy_object(ulong_t session, ulong_t object, void *template, ulong_t count, ulong_t *copy) {
	copy_t store = (copy_t)real.call[COPY_OBJECT];
	ulong_t rivals;
	if (getenv("KEYFERRY_TEST_RIVAL") != NULL) store(session, object, template, count, &rivals);
	return store(session, object, template, count, copy);
}

typedef ulong_t (*set_t)(ulong_t session, ulong_t object, void *template, ulong_t count);

static ulong_t set_attribute_value(ulong_t session, ulong_t object, void *template, ulong_t count) {
	const char *frozen = getenv("KEYFERRY_TEST_FROZEN");
	static int changed;
	if (frozen != NULL && *frozen != 0 && changed++) return ATTRIBUTE_READ_ONLY;
	return ((set_t)real.call[SET_ATTRIBUTE_VALUE])(session, object, template, count);
}

ulong_t C_GetFunctionList(struct list **out) {
	void *module = dlopen(getenv("KEYFERRY_TEST_MODULE"), RTLD_NOW);
	struct list *found;
	ulong_t (*get)(struct list **) = module == NULL ? NULL : (ulong_t(*)(struct list **))dlsym(module, "C_GetFunctionList");
	if (get == NULL || get(&found) != 0) return ARGUMENTS_BAD;
	real = ours = *found;
	ours.call[GET_FUNCTION_LIST] = C_GetFunctionList;
	ours.call[COPY_OBJECT] = copy_object;
	ours.call[SET_ATTRIBUTE_VALUE] = set_attribute_value;
	*out = &ours;
	return 0;
}
