// SPDX-License-Identifier: Apache-2.0

// The broken module again, which needs a DLL of its vendor's.
#include "module.c"

__declspec(dllimport) int dependency(void);
__declspec(dllexport) int needs(void) { return dependency(); }
