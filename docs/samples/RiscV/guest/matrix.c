/* Powers of the Fibonacci matrix modulo a prime, and a product of larger matrices checked by a vector (Freivalds). */
#include "guest.h"

#define N 40
#define PRIME 1000000007ul

static u64 a[N][N], b[N][N], c[N][N];

static u64 fibonacci(u64 n)
{
    u64 r00 = 1, r01 = 0, r10 = 0, r11 = 1, m00 = 1, m01 = 1, m10 = 1, m11 = 0;
    for (; n; n >>= 1) {
        u64 t00, t01, t10, t11;
        if (n & 1) {
            t00 = (r00 * m00 + r01 * m10) % PRIME, t01 = (r00 * m01 + r01 * m11) % PRIME;
            t10 = (r10 * m00 + r11 * m10) % PRIME, t11 = (r10 * m01 + r11 * m11) % PRIME;
            r00 = t00, r01 = t01, r10 = t10, r11 = t11;
        }
        t00 = (m00 * m00 + m01 * m10) % PRIME, t01 = (m00 * m01 + m01 * m11) % PRIME;
        t10 = (m10 * m00 + m11 * m10) % PRIME, t11 = (m10 * m01 + m11 * m11) % PRIME;
        m00 = t00, m01 = t01, m10 = t10, m11 = t11;
    }
    return r01;
}

int main(void)
{
    for (u64 i = 0; i < N; i++)
        for (u64 j = 0; j < N; j++)
            a[i][j] = i * 7919 + j * 104729, b[i][j] = (i ^ j) * 1299709 + 1;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            for (int k = 0; k < N; k++)
                c[i][j] = (c[i][j] + a[i][k] * b[k][j]) % PRIME;
    for (int i = 0; i < N; i++) {
        u64 left = 0, right = 0;
        for (int j = 0; j < N; j++)
            left = (left + c[i][j] * (u64)(j + 3)) % PRIME;
        for (int k = 0; k < N; k++) {
            u64 row = 0;
            for (int j = 0; j < N; j++)
                row = (row + b[k][j] * (u64)(j + 3)) % PRIME;
            right = (right + a[i][k] % PRIME * row) % PRIME;
        }
        if (left != right)
            return 1;
    }
    print_number("fibonacci(90)", fibonacci(90), 10);
    u64 x = 0, y = 1;
    for (int i = 0; i < 90; i++) {
        u64 z = (x + y) % PRIME;
        x = y, y = z;
    }
    return x == fibonacci(90) ? 0 : 2;
}
