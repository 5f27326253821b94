/* How many primes are below 100000, found over and over: a loop of one store. */
#include "../guest.h"

#ifndef ROUNDS
#define ROUNDS 400
#endif
#define LIMIT 100000

static u8 composite[LIMIT];

int main(void)
{
    u64 count = 0;
    for (u32 round = 0; round < ROUNDS; round++) {
        for (u32 n = 0; n < LIMIT; n++)
            composite[n] = 0;
        for (u32 n = 2; n < LIMIT; n++) {
            if (composite[n])
                continue;
            count++;
            for (u32 m = n + n; m < LIMIT; m += n)
                composite[m] = 1;
        }
    }
    print_number("primes", count / ROUNDS, 10);
    return count == 9592ul * ROUNDS ? 0 : 1;
}
