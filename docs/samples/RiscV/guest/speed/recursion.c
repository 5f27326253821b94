/* Fibonacci by its definition, and Ackermann's function: calls, returns, the stack. */
#include "../guest.h"

#ifndef ROUNDS
#define ROUNDS 34
#endif

__attribute__((noinline, optimize("no-optimize-sibling-calls"))) static u64 fibonacci(u64 n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

__attribute__((noinline)) static u64 ackermann(u64 m, u64 n)
{
    return m == 0 ? n + 1 : n == 0 ? ackermann(m - 1, 1) : ackermann(m - 1, ackermann(m, n - 1));
}

int main(void)
{
    print_number("fibonacci", fibonacci(ROUNDS), 10);
    u64 result = ackermann(2, ROUNDS * 16);
    print_number("ackermann", result, 10);
    return result == 2 * ROUNDS * 16 + 3 ? 0 : 1;
}
