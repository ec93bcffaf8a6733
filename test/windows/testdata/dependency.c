// SPDX-License-Identifier: Apache-2.0

// What the module needs. A planted one shows that it was loaded: it ends the
// process.
#include <windows.h>

__declspec(dllexport) int dependency(void) { return 0; }

BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, LPVOID reserved) {
#ifdef PLANTED
	ExitProcess(77);
#endif
	return TRUE;
}
