// SPDX-License-Identifier: Apache-2.0

// A PKCS#11 module whose device is broken: what it answers shows that it was
// loaded and called, and whether it finds a configuration in the root of the drive.
#include <windows.h>

#pragma pack(push, 1) // as PKCS#11 has it on Windows
struct functions {
	unsigned char version[2];
	void *call[68];
};
#pragma pack(pop)

enum { CKR_OK = 0, CKR_GENERAL_ERROR = 5, CKR_DEVICE_ERROR = 0x30 };

static unsigned long initialize(void *arguments) {
	return GetFileAttributesW(L"\\module.cnf") == INVALID_FILE_ATTRIBUTES ? CKR_DEVICE_ERROR : CKR_GENERAL_ERROR;
}

static struct functions functions = {{2, 40}, {initialize}};

__declspec(dllexport) unsigned long C_GetFunctionList(struct functions **list) {
	for (int i = 1; i < 68; i++) functions.call[i] = functions.call[0]; // none is missing
	*list = &functions;
	return CKR_OK;
}
