/* SHA-256 of many blocks: 32-bit arithmetic with more values at hand than there are registers. */
#include "../guest.h"

#ifndef ROUNDS
#define ROUNDS 300000
#endif

static u32 constants[64];
static u32 state[8];

/* The first 32 bits of the fractional part of a root of a prime, by bisection over whole numbers: floor(root * 2^32). */
static u32 root_bits(u64 prime, int cube)
{
    u64 low = 0, high = 1ul << 36;
    while (high - low > 1) {
        u64 middle = low + (high - low) / 2;
        unsigned __int128 square = (unsigned __int128)middle * middle;
        /* The cube needs 108 bits, which is what there is. */
        int above = cube ? square * middle >> 96 >= prime : square >> 64 >= prime;
        if (above)
            high = middle;
        else
            low = middle;
    }
    return (u32)low;
}

static void set_up(void)
{
    int count = 0;
    for (u64 n = 2; count < 64; n++) {
        int prime = 1;
        for (u64 d = 2; d * d <= n; d++)
            prime &= n % d != 0;
        if (!prime)
            continue;
        if (count < 8)
            state[count] = root_bits(n, 0);
        constants[count++] = root_bits(n, 1);
    }
}

static inline u32 turn(u32 x, int n) { return x >> n | x << (32 - n); }

__attribute__((noinline)) static void block(const u8 *bytes)
{
    u32 w[64];
    for (int i = 0; i < 16; i++)
        w[i] = (u32)bytes[4 * i] << 24 | (u32)bytes[4 * i + 1] << 16 | (u32)bytes[4 * i + 2] << 8 | bytes[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        u32 s0 = turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ w[i - 15] >> 3;
        u32 s1 = turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    u32 a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
    for (int i = 0; i < 64; i++) {
        u32 t1 = h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + constants[i] + w[i];
        u32 t2 = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

int main(void)
{
    static u8 message[64] = "abc\x80";
    message[63] = 24; /* bits */
    set_up();
    block(message);
    print_number("abc", (u64)state[0] << 32 | state[1], 16);
    int right = state[0] == 0xba7816bfu && state[7] == 0xf20015adu;
    for (u32 round = 1; round < ROUNDS; round++) {
        message[round & 63] ^= (u8)state[round & 7];
        block(message);
    }
    print_number("all", (u64)state[0] << 32 | state[1], 16);
    return right ? 0 : 1;
}
