/* How many primes are below 100000? 9592. */
#include "guest.h"

#define LIMIT 100000

static u8 composite[LIMIT];

int main(void)
{
    u32 count = 0;
    for (u32 n = 2; n < LIMIT; n++) {
        if (composite[n])
            continue;
        count++;
        for (u32 m = n + n; m < LIMIT; m += n)
            composite[m] = 1;
    }
    print_number("primes", count, 10);
    return count == 9592 ? 0 : 1;
}
