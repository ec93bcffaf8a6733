// SPDX-License-Identifier: Apache-2.0

// Starts a program in its own console, which it leaves to it as a careless program
// does: without lines and echo, in a code page of old. When the program asks for
// something it does what a person does with the keyboard or the window, and tells how
// the program ended and whether the console is as it was.
#include <windows.h>
#include <stdio.h>

static BOOL WINAPI stay(DWORD event) { return TRUE; }

int wmain(int count, wchar_t **arguments) { // type, break, close or mintty; a file for what it tells; a command line
	FILE *told = _wfopen(arguments[2], L"w");
	HANDLE in = CreateFileW(L"CONIN$", GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING, 0, NULL);
	const DWORD left = ENABLE_EXTENDED_FLAGS | ENABLE_INSERT_MODE;
	DWORD mode = 0, code = 0;
	STARTUPINFOW start = {sizeof start};
	PROCESS_INFORMATION program;
	SetConsoleCtrlHandler(stay, TRUE);
	if (!SetConsoleMode(in, left) || !SetConsoleCP(850) || !SetConsoleOutputCP(850) || !GetConsoleMode(in, &mode) || mode & ENABLE_LINE_INPUT) return 90;
	const DWORD before = mode;
	if (wcscmp(arguments[1], L"mintty") == 0) { // whose input is a pipe, by its name
		const wchar_t *name = L"\\\\.\\pipe\\msys-dd50a72ab4668b33-pty0-from-master";
		SECURITY_ATTRIBUTES inherited = {sizeof inherited, NULL, TRUE};
		CreateNamedPipeW(name, PIPE_ACCESS_DUPLEX, 0, 1, 512, 512, 0, NULL);
		start.dwFlags = STARTF_USESTDHANDLES;
		start.hStdInput = CreateFileW(name, GENERIC_READ, 0, &inherited, OPEN_EXISTING, 0, NULL);
		start.hStdOutput = GetStdHandle(STD_OUTPUT_HANDLE);
		start.hStdError = GetStdHandle(STD_ERROR_HANDLE);
	}
	if (!CreateProcessW(NULL, arguments[3], NULL, NULL, TRUE, 0, NULL, NULL, &start, &program)) return 91;
	while (WaitForSingleObject(program.hProcess, 10) == WAIT_TIMEOUT && GetConsoleMode(in, &mode) && !(mode & ENABLE_LINE_INPUT));
	fprintf(told, "it asks %s\n", mode & ENABLE_LINE_INPUT ? mode & ENABLE_ECHO_INPUT ? "and shows" : "in secret" : "NOTHING");
	fflush(told);
	if (wcscmp(arguments[1], L"break") == 0 || wcscmp(arguments[1], L"close") == 0) { // as the console's host does it
		size_t event = wcscmp(arguments[1], L"close") == 0 ? CTRL_CLOSE_EVENT : CTRL_BREAK_EVENT;
		LPTHREAD_START_ROUTINE routine = (LPTHREAD_START_ROUTINE)GetProcAddress(GetModuleHandleW(L"kernelbase"), "CtrlRoutine");
		if (!routine || !CreateRemoteThread(program.hProcess, NULL, 0, routine, (void *)event, 0, NULL)) return 92;
	}
	if (WaitForSingleObject(program.hProcess, 8000)) TerminateProcess(program.hProcess, 93);
	GetExitCodeProcess(program.hProcess, &code);
	GetConsoleMode(in, &mode);
	fprintf(told, "it ended with %lu, the console is %s\n", code, mode == before ? "as it was" : "CHANGED");
	return 0;
}
