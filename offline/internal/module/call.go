// SPDX-License-Identifier: Apache-2.0

package module

/*
#cgo linux LDFLAGS: -ldl
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef _WIN32
#include <windows.h>
#define LOADED(path) GetModuleHandleA(path)
#define SYMBOL(module, name) ((void *)GetProcAddress(module, name))
#define RELEASE(module) ((void)0)
typedef HMODULE module_t;
#pragma pack(push, 1) // as PKCS#11 has it on Windows
#else
#include <dlfcn.h>
#define LOADED(path) dlopen(path, RTLD_LAZY | RTLD_NOLOAD)
#define SYMBOL(module, name) dlsym(module, name)
#define RELEASE(module) dlclose(module)
typedef void *module_t;
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

// load_module loads a module for the rest of the process, so that nobody who
// loads it again meets a surprise, and writes into why what is wrong with it.
static void load_module(const char *path, char *why, size_t size) {
	struct functions *list = NULL;
#ifdef _WIN32
	// With the directory of the module, and not that of the program, for what it needs itself.
	wchar_t wide[32768];
	module_t module = NULL;
	if (MultiByteToWideChar(CP_UTF8, 0, path, -1, wide, 32768) > 0) module = LoadLibraryExW(wide, NULL, LOAD_WITH_ALTERED_SEARCH_PATH);
	if (module == NULL) {
		snprintf(why, size, "the system's loader says error %lu", GetLastError());
		return;
	}
#else
	module_t module = dlopen(path, RTLD_LAZY);
	if (module == NULL) {
		snprintf(why, size, "the system's loader says: %s", dlerror());
		return;
	}
#endif
	get_list_t get = (get_list_t)SYMBOL(module, "C_GetFunctionList");
	if (get == NULL && SYMBOL(module, "C_GetInterface") != NULL) {
		snprintf(why, size, "it offers C_GetInterface of PKCS#11 3 alone, and Keyferry calls C_GetFunctionList of PKCS#11 2");
	} else if (get == NULL) {
		snprintf(why, size, "it is a library, but no PKCS#11 module: it has no C_GetFunctionList");
	} else {
		ulong_t rv = get(&list);
		if (rv != 0) snprintf(why, size, "its C_GetFunctionList fails with 0x%lX", rv);
		else if (list == NULL) snprintf(why, size, "its C_GetFunctionList gives no functions");
	}
}

// find returns a function of a module that is loaded already, NULL if it has none.
static void *find(const char *path, int place) {
	struct functions *list = NULL;
	module_t module = LOADED(path);
	if (module == NULL) return NULL;
	get_list_t get = (get_list_t)SYMBOL(module, "C_GetFunctionList");
	if (get != NULL && get(&list) != 0) list = NULL;
	RELEASE(module); // it stays loaded by its first user
	return list == NULL ? NULL : list->call[place];
}

enum { FUNCTION_NOT_SUPPORTED = 0x54 };

static ulong_t login_at_pad(const char *path, ulong_t session) {
	login_t login = (login_t)find(path, LOGIN);
	return login == NULL ? FUNCTION_NOT_SUPPORTED : login(session, 1, NULL, 0); // 1: CKU_USER
}

static ulong_t wrap_key_into(const char *path, ulong_t session, ulong_t type, ulong_t wrapping, ulong_t key, unsigned char *out, ulong_t *length) {
	wrap_key_t wrap = (wrap_key_t)find(path, WRAP_KEY);
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
// words for. Those calls go to the module itself, which the loader knows by its
// path.
type Module struct {
	*pkcs11.Ctx
	Path string
}

// Fault loads a library, and says why it can't serve as a PKCS#11 module; empty
// if it can. miekg/pkcs11 says nothing of the loader's reason, and crashes where
// C_GetFunctionList fails.
func Fault(path string) string {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var why [1024]C.char
	C.load_module(name, &why[0], C.size_t(len(why)))
	return C.GoString(&why[0])
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
	path := C.CString(m.Path)
	defer C.free(unsafe.Pointer(path))
	return result(C.login_at_pad(path, C.ulong_t(session)))
}

// WrapKeyInto is C_WrapKey by a mechanism without parameters, with room for
// size bytes and without asking for the length before, as miekg/pkcs11 does.
func (m *Module) WrapKeyInto(session pkcs11.SessionHandle, mechanism uint, wrapping, key pkcs11.ObjectHandle, size int) ([]byte, error) {
	path := C.CString(m.Path)
	defer C.free(unsafe.Pointer(path))
	out, length := make([]byte, size), C.ulong_t(size)
	err := result(C.wrap_key_into(path, C.ulong_t(session), C.ulong_t(mechanism), C.ulong_t(wrapping), C.ulong_t(key), (*C.uchar)(&out[0]), &length))
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
