/* Lets a program take this machine for one with AVX2 and no AVX-512, libraries that have no switch for it included (ONNX Runtime):
 * CPUID traps, and the handler answers without the bits. Linux on x86-64, where processor and hypervisor let CPUID trap
 * ("cpuid_fault" in /proc/cpuinfo); ends the program where they do not.
 *
 *     cc -shared -fPIC -O1 -o without-avx512.so benches/cpu/without-avx512.c
 *     LD_PRELOAD=$PWD/without-avx512.so yolo-lat bench
 *
 * Compiled with -DWITHOUT_AVX2 it leaves out AVX2 as well; with -DWITH_AVX_VNNI it tells of dot products of bytes in vectors of AVX2, which Intel's
 * processors without AVX-512 have since 2021 and those with it since 2023, where this machine computes them, though its hypervisor may not say so. */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <cpuid.h>
#include <immintrin.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* Leaf 7: foundation, DQ, IFMA, PF, ER, CD, BW, VL; VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ; 4VNNIW, 4FMAPS, VP2INTERSECT, AMX, FP16. */
static const unsigned ebx = 1u << 16 | 1u << 17 | 1u << 21 | 7u << 26 | 3u << 30;
static const unsigned ecx = 1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14;
static const unsigned edx = 3u << 2 | 1u << 8 | 15u << 22;
static const unsigned avx2 = 1u << 5;
#ifdef WITH_AVX_VNNI
#define AVX_VNNI (1u << 4)

static void lacks_avx_vnni(int signal_number) {
    (void)signal_number;
    static const char line[] = "without-avx512: this machine has no AVX-VNNI\n";
    _exit(write(2, line, sizeof line - 1) < 0 ? 2 : 1);
}

__attribute__((target("avx2,avxvnni"))) static int dot_product(void) {
    volatile int ones = 0x01010101;
    __m256i four = _mm256_set1_epi32(ones);
    return _mm256_extract_epi32(_mm256_dpbusd_avx_epi32(four, four, four), 0) - ones;
}
#else
#define AVX_VNNI 0
#endif

static void trap_cpuid(int on) { syscall(SYS_arch_prctl, ARCH_SET_CPUID, (long)!on); }

static void answer(int signal_number, siginfo_t *info, void *context) {
    (void)info;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *code = (const unsigned char *)registers[REG_RIP];
    if (code[0] != 0x0f || code[1] != 0xa2) {
        /* A fault of the program: it comes again, without this handler. */
        signal(signal_number, SIG_DFL);
        return;
    }
    unsigned leaf = registers[REG_RAX], part = registers[REG_RCX], a, b, c, d;
    trap_cpuid(0);
    __cpuid_count(leaf, part, a, b, c, d);
    trap_cpuid(1);
    if (leaf == 7 && part == 0) {
        a = AVX_VNNI != 0; /* the last part */
        b &= ~ebx, c &= ~ecx, d &= ~edx;
#ifdef WITHOUT_AVX2
        b &= ~avx2;
#else
        (void)avx2;
#endif
    } else if (leaf == 7) {
        /* BF16, AMX of later parts. */
        a = part == 1 ? AVX_VNNI : 0;
        b = c = d = 0;
    }
    registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void begin(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
#ifdef WITH_AVX_VNNI
    signal(SIGILL, lacks_avx_vnni);
    if (dot_product() != 4)
        lacks_avx_vnni(SIGILL);
    signal(SIGILL, SIG_DFL);
#endif
    action.sa_sigaction = answer;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, NULL);
    if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0L) != 0) {
        fputs("without-avx512: CPUID does not trap on this machine\n", stderr);
        _exit(1);
    }
}
