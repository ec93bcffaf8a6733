// SPDX-License-Identifier: Apache-2.0

package module

/*
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef _WIN32
#include <windows.h>
#define SYMBOL(library, name) ((void *)GetProcAddress((HMODULE)library, name))
#pragma pack(push, 1) // as PKCS#11 has it on Windows
#else
#include <dlfcn.h>
#define SYMBOL(library, name) dlsym((void *)library, name)
#endif

typedef unsigned long ulong_t; // CK_ULONG

struct mechanism {
	ulong_t type;
	void *parameter;
	ulong_t length;
};

// CK_FUNCTION_LIST: a version, then the functions in the standard's order.
struct functions {
	unsigned char version[2];
	void *call[68];
};

#ifdef _WIN32
#pragma pack(pop)
#endif

enum { LOGIN = 18, WRAP_KEY = 60 }; // places in the list

typedef ulong_t (*get_list_t)(struct functions **);
typedef ulong_t (*login_t)(ulong_t session, ulong_t user, unsigned char *pin, ulong_t length);
typedef ulong_t (*wrap_key_t)(ulong_t session, struct mechanism *, ulong_t wrapping, ulong_t key, unsigned char *out, ulong_t *length);

// called are the functions that are called; a module must have them, were it to say only
// that it does not support one.
static const struct { int place; const char *name; } called[] = {
	{0, "C_Initialize"}, {1, "C_Finalize"}, {2, "C_GetInfo"}, {4, "C_GetSlotList"}, {6, "C_GetTokenInfo"}, {7, "C_GetMechanismList"}, {8, "C_GetMechanismInfo"},
	{12, "C_OpenSession"}, {13, "C_CloseSession"}, {LOGIN, "C_Login"}, {20, "C_CreateObject"}, {21, "C_CopyObject"}, {22, "C_DestroyObject"},
	{24, "C_GetAttributeValue"}, {25, "C_SetAttributeValue"}, {26, "C_FindObjectsInit"}, {27, "C_FindObjects"}, {28, "C_FindObjectsFinal"},
	{33, "C_DecryptInit"}, {34, "C_Decrypt"}, {42, "C_SignInit"}, {43, "C_Sign"}, {58, "C_GenerateKey"}, {59, "C_GenerateKeyPair"},
	{WRAP_KEY, "C_WrapKey"}, {61, "C_UnwrapKey"}, {64, "C_GenerateRandom"},
};

// check writes into why what is wrong with a loaded library as a PKCS#11 module.
static void check(uintptr_t library, char *why, size_t size) {
	struct functions *list = NULL;
	get_list_t get = (get_list_t)SYMBOL(library, "C_GetFunctionList");
	if (get == NULL && SYMBOL(library, "C_GetInterface") != NULL) {
		snprintf(why, size, "it offers C_GetInterface of PKCS#11 3 alone, and Keyferry calls C_GetFunctionList of PKCS#11 2");
	} else if (get == NULL) {
		snprintf(why, size, "it is a library, but no PKCS#11 module: it has no C_GetFunctionList");
	} else {
		ulong_t rv = get(&list);
		if (rv != 0) snprintf(why, size, "its C_GetFunctionList fails with 0x%lX", rv);
		else if (list == NULL) snprintf(why, size, "its C_GetFunctionList gives no functions");
		else for (size_t i = 0; i < sizeof called / sizeof *called; i++)
			if (list->call[called[i].place] == NULL) snprintf(why, size, "its list of functions has no %s", called[i].name);
	}
}

// find returns a function of a module, NULL if it has none.
static void *find(uintptr_t library, int place) {
	struct functions *list = NULL;
	get_list_t get = (get_list_t)SYMBOL(library, "C_GetFunctionList");
	if (get == NULL || get(&list) != 0 || list == NULL) return NULL;
	return list->call[place];
}

enum { FUNCTION_NOT_SUPPORTED = 0x54 };

static ulong_t login_at_pad(uintptr_t library, ulong_t session) {
	login_t login = (login_t)find(library, LOGIN);
	return login == NULL ? FUNCTION_NOT_SUPPORTED : login(session, 1, NULL, 0); // 1: CKU_USER
}

static ulong_t wrap_key_into(uintptr_t library, ulong_t session, ulong_t type, ulong_t wrapping, ulong_t key, unsigned char *out, ulong_t *length) {
	wrap_key_t wrap = (wrap_key_t)find(library, WRAP_KEY);
	struct mechanism m = { type, NULL, 0 };
	return wrap == NULL ? FUNCTION_NOT_SUPPORTED : wrap(session, &m, wrapping, key, out, length);
}
*/
import "C"

import (
	"unsafe"

	"github.com/miekg/pkcs11"
)

// Module is a loaded PKCS#11 module: miekg/pkcs11, and below what it has no
// words for.
type Module struct {
	*pkcs11.Ctx
	library uintptr
}

// Open loads a library for the rest of the process, so that nobody who loads it
// again meets a surprise, and says why it can't serve as a PKCS#11 module: a fault,
// empty if it can. miekg/pkcs11 says nothing of the loader's reason, and crashes
// where C_GetFunctionList fails.
func Open(path string) (library uintptr, fault string) {
	library, fault = loadLibrary(path)
	if fault == "" {
		var why [1024]C.char
		C.check(C.uintptr_t(library), &why[0], C.size_t(len(why)))
		fault = C.GoString(&why[0])
	}
	return library, fault
}

// Start is C_Initialize, with the module's own parameters if there are
// any: NSS takes a configuration in the place of pReserved.
func (m *Module) Start(parameters string) error {
	if parameters == "" {
		return m.Initialize()
	}
	text := C.CString(parameters)
	defer C.free(unsafe.Pointer(text))
	return m.Initialize(pkcs11.InitializeWithReserved(unsafe.Pointer(text)))
}

// LoginAtPad is C_Login with no PIN, NULL, upon which the token asks for it at
// a keypad of its own. miekg/pkcs11 passes an empty PIN, which is not the same.
func (m *Module) LoginAtPad(session pkcs11.SessionHandle) error {
	return result(C.login_at_pad(C.uintptr_t(m.library), C.ulong_t(session)))
}

// WrapKeyInto is C_WrapKey by a mechanism without parameters, with room for
// size bytes and without asking for the length before, as miekg/pkcs11 does.
func (m *Module) WrapKeyInto(session pkcs11.SessionHandle, mechanism uint, wrapping, key pkcs11.ObjectHandle, size int) ([]byte, error) {
	out, length := make([]byte, size), C.ulong_t(size)
	err := result(C.wrap_key_into(C.uintptr_t(m.library), C.ulong_t(session), C.ulong_t(mechanism), C.ulong_t(wrapping), C.ulong_t(key), (*C.uchar)(&out[0]), &length))
	if err != nil {
		return nil, err
	}
	return out[:length], nil
}

func result(rv C.ulong_t) error {
	if rv == pkcs11.CKR_OK {
		return nil
	}
	return pkcs11.Error(rv)
}
