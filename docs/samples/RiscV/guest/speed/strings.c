/* Text: copied, measured, compared, searched and hashed, a byte at a time. */
#include "../guest.h"

#ifndef ROUNDS
#define ROUNDS 300000
#endif

static char text[512], copy[512];

__attribute__((noinline)) static u64 copy_text(char *to, const char *from)
{
    char *start = to;
    while ((*to++ = *from++))
        ;
    return (u64)(to - start - 1);
}

__attribute__((noinline)) static int compare(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return (u8)*a - (u8)*b;
}

__attribute__((noinline)) static const char *find(const char *in, const char *what)
{
    for (; *in; in++) {
        const char *a = in, *b = what;
        while (*b && *a == *b)
            a++, b++;
        if (!*b)
            return in;
    }
    return 0;
}

int main(void)
{
    static const char words[] = "the quick brown fox jumps over the lazy dog, and the five boxing wizards jump quickly behind it";
    u64 hash = 14695981039346656037ul;
    for (u32 round = 0; round < ROUNDS; round++) {
        u32 shift = round & 255;
        u64 length = copy_text(text + shift, words);
        copy_text(copy + 255 - shift, text + shift);
        if (length != sizeof words - 1 || compare(text + shift, copy + 255 - shift))
            return 1;
        const char *found = find(text + shift, "quickly");
        if (found - text - shift != 78)
            return 2;
        for (const char *p = copy + 255 - shift; *p; p++)
            hash = (hash ^ (u8)*p) * 1099511628211ul;
    }
    print_number("hash", hash, 16);
    return 0;
}
