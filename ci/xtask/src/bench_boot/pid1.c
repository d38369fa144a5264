/* PID 1 for `cargo xtask bench --boot`, on every architecture: writes the kernel's log to its console, and switches the
 * machine off. The log, since the console of a virtio port misses what was said before the port was open. */

#if defined(__x86_64__)
enum { WRITE = 1, SYSLOG = 103, REBOOT = 169 };
#elif defined(__aarch64__) || defined(__riscv)
enum { WRITE = 64, SYSLOG = 116, REBOOT = 142 };
#else /* s390x, powerpc64le */
enum { WRITE = 4, SYSLOG = 103, REBOOT = 88 };
#endif

static long call(long number, long a, long b, long c)
{
#if defined(__x86_64__)
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
#elif defined(__riscv)
    register long a7 __asm__("a7") = number, a0 __asm__("a0") = a, a1 __asm__("a1") = b, a2 __asm__("a2") = c;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2) : "memory");
    return a0;
#elif defined(__s390x__)
    register long r1 __asm__("1") = number, r2 __asm__("2") = a, r3 __asm__("3") = b, r4 __asm__("4") = c;
    __asm__ volatile("svc 0" : "+d"(r2) : "d"(r1), "d"(r3), "d"(r4) : "memory");
    return r2;
#else
    register long r0 __asm__("r0") = number, r3 __asm__("r3") = a, r4 __asm__("r4") = b, r5 __asm__("r5") = c;
    __asm__ volatile("sc"
                     : "+r"(r0), "+r"(r3), "+r"(r4), "+r"(r5)
                     :
                     : "memory", "cr0", "ctr", "r6", "r7", "r8", "r9", "r10", "r11", "r12");
    return r3;
#endif
}

static char text[1 << 20];

void _start(void)
{
    long length = call(SYSLOG, 3 /* read all */, (long)text, sizeof text);
    for (long at = 0, wrote; at < length; at += wrote) {
        wrote = call(WRITE, 1, (long)text + at, length - at);
        if (wrote <= 0)
            break;
    }
    call(REBOOT, 0xfee1dead, 672274793, 0x4321fedc /* power off */);
    for (;;)
        ;
}
