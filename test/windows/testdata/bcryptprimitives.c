// SPDX-License-Identifier: Apache-2.0

// Wine 8 lacks this library of Windows, from which Go takes its randomness.
#include <windows.h>
#include <ntsecapi.h>

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T length) { return RtlGenRandom(data, length); }
