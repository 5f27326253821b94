/* CRC-32 (reflected, polynomial edb88320): its published check value is that of "123456789". */
#include "guest.h"

static u32 table[256];
static u8 data[65536];

static u32 crc(const u8 *bytes, u64 length)
{
    u32 value = ~0u;
    while (length--)
        value = table[(value ^ *bytes++) & 255] ^ value >> 8;
    return ~value;
}

int main(void)
{
    for (u32 i = 0; i < 256; i++) {
        u32 value = i;
        for (int bit = 0; bit < 8; bit++)
            value = value & 1 ? value >> 1 ^ 0xedb88320u : value >> 1;
        table[i] = value;
    }
    u32 check = crc((const u8 *)"123456789", 9);
    print_number("check", check, 16);
    for (u32 i = 0; i < sizeof data; i++)
        data[i] = (u8)i;
    print_number("bytes", crc(data, sizeof data), 16);
    return check == 0xcbf43926u ? 0 : 1;
}
