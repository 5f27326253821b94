/* A guest that writes programs of two instructions and runs them, one after the other in the same place; fence.i says that there is new code. */
#include "guest.h"

__asm__(".pushsection .text\n"
        ".balign 4\n"
        "made: .space 8\n"
        ".popsection");

extern u32 made[2];

static void make_adder(u32 number)
{
    made[0] = 0x00050513 | number << 20; /* addi a0, a0, number */
    made[1] = 0x00008067;                /* ret */
    __asm__ volatile(".option push\n.option arch, +zifencei\nfence.i\n.option pop" : : : "memory");
}

int main(void)
{
    u64 sum = 0;
    for (u32 number = 1; number <= 1000; number++) {
        make_adder(number);
        sum = ((u64 (*)(u64))made)(sum);
    }
    print_number("sum", sum, 10);
    return sum == 500500 ? 0 : 1;
}
