/* A small virtual machine: each step calls a function through a table, which the step before chose. */
#include "../guest.h"

#ifndef ROUNDS
#define ROUNDS 8000000
#endif

static u64 value = 1;

static u32 add(u32 step) { value += step; return step + 1; }
static u32 mix(u32 step) { value ^= value << 13; return step + 3; }
static u32 fold(u32 step) { value ^= value >> 7; return step * 5; }
static u32 turn(u32 step) { value ^= value << 17; return step + (u32)(value >> 60); }

static u32 (*const table[8])(u32) = { add, mix, fold, turn, mix, add, turn, fold };

int main(void)
{
    u32 step = 1;
    for (u32 round = 0; round < ROUNDS; round++)
        step = table[(step ^ round) & 7](step);
    print_number("value", value, 16);
    return 0;
}
