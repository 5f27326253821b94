/* Products of 64-bit integer matrices: multiplications, and addresses in long steps. */
#include "../guest.h"

#ifndef ROUNDS
#define ROUNDS 60
#endif
#define N 120

static u64 a[N][N], b[N][N], c[N][N];

int main(void)
{
    for (u64 i = 0; i < N; i++)
        for (u64 j = 0; j < N; j++)
            a[i][j] = i * 7919 + j * 104729, b[i][j] = (i ^ j) * 1299709 + 1;
    for (u32 round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) {
                u64 sum = 0;
                for (int k = 0; k < N; k++)
                    sum += a[i][k] * b[k][j];
                c[i][j] = sum;
            }
        /* The product by a vector must be what the factors give one after the other (Freivalds). */
        for (int i = 0; i < N; i++) {
            u64 left = 0, right = 0;
            for (u64 j = 0; j < N; j++)
                left += c[i][j] * (j + 3);
            for (int k = 0; k < N; k++) {
                u64 row = 0;
                for (u64 j = 0; j < N; j++)
                    row += b[k][j] * (j + 3);
                right += a[i][k] * row;
            }
            if (left != right)
                return 1;
        }
        a[round % N][0] ^= c[N - 1][N - 1];
    }
    print_number("corner", c[N - 1][N - 1], 16);
    return 0;
}
