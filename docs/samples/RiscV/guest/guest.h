/* All a guest has: two system calls, and a few lines to print with. */
#ifndef GUEST_H
#define GUEST_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef int s32;
typedef long s64;

static inline long guest_call(long number, long a, long b, long c)
{
    register long a0 __asm__("a0") = a;
    register long a1 __asm__("a1") = b;
    register long a2 __asm__("a2") = c;
    register long a7 __asm__("a7") = number;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a7) : "memory");
    return a0;
}

static inline void print(const char *text)
{
    long length = 0;
    while (text[length])
        length++;
    guest_call(64, 1, (long)text, length);
}

static inline void print_number(const char *name, u64 value, u32 base)
{
    char text[24];
    int at = sizeof text;
    text[--at] = 0;
    text[--at] = '\n';
    do {
        text[--at] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    print(name);
    print(" ");
    print(&text[at]);
}

#endif
