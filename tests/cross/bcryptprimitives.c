/* Rust's standard library asks Windows' bcryptprimitives.dll for random bytes, which wine has from version 9 on. Beside the program, for
 * older ones: the same function by advapi32, which they have. Windows itself never reads this. */
#include <windows.h>
#include <ntsecapi.h>

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T length) {
    return RtlGenRandom(data, (ULONG)length);
}
