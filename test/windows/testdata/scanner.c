// SPDX-License-Identifier: Apache-2.0

// Holds each new file of a directory open for 300 ms, as a virus scanner does:
// others may read and write it meanwhile, and neither rename nor remove it.
#include <windows.h>
#include <stdio.h>

int wmain(int count, wchar_t **arguments) {
	wchar_t seen[64][MAX_PATH], pattern[MAX_PATH], path[MAX_PATH];
	int known = 0;
	for (DWORD end = GetTickCount() + 1000 * _wtoi(arguments[2]); GetTickCount() < end; Sleep(1)) {
		WIN32_FIND_DATAW found;
		_snwprintf(pattern, MAX_PATH, L"%ls\\*.part", arguments[1]);
		HANDLE search = FindFirstFileW(pattern, &found);
		if (search == INVALID_HANDLE_VALUE) continue;
		do {
			int i = 0;
			while (i < known && wcscmp(seen[i], found.cFileName)) i++;
			if (i < known || known == 64) continue;
			_snwprintf(path, MAX_PATH, L"%ls\\%ls", arguments[1], found.cFileName);
			HANDLE file = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, NULL);
			if (file == INVALID_HANDLE_VALUE) continue;
			wcscpy(seen[known++], found.cFileName);
			Sleep(300);
			CloseHandle(file);
			printf("held %ls\n", found.cFileName);
			fflush(stdout);
		} while (FindNextFileW(search, &found));
		FindClose(search);
	}
	return 0;
}
