/* Bytes at every alignment: copy, compare, reverse, search. */
#include "guest.h"

void *memcpy(void *to, const void *from, unsigned long length);

static char text[256], copy[256];

static int compare(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return (u8)*a - (u8)*b;
}

static const char *find(const char *in, const char *what)
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
    static const char words[] = "the quick brown fox jumps over the lazy dog";
    u64 hash = 5381;
    for (u32 shift = 0; shift < 32; shift++) {
        memcpy(text + shift, words, sizeof words);
        memcpy(copy + 31 - shift, text + shift, sizeof words);
        if (compare(text + shift, copy + 31 - shift))
            return 1;
        char *left = copy + 31 - shift, *right = left + sizeof words - 2;
        while (left < right) {
            char c = *left;
            *left++ = *right;
            *right-- = c;
        }
        if (!find(copy + 31 - shift, "god yzal"))
            return 2;
        for (const char *p = copy + 31 - shift; *p; p++)
            hash = hash * 33 ^ (u8)*p;
    }
    print(copy);
    print("\n");
    print_number("hash", hash, 16);
    return find(words, "fox") - words == 16 ? 0 : 3;
}
