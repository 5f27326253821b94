/* What C leaves to the processor: every width of load and store with its extension, the edges of division, high products, shifts. */
#include "guest.h"

static volatile union {
    u8 bytes[16];
    u16 halves[8];
    u32 words[4];
    u64 doubles[2];
} memory;

#define CHECK(what) do { checks++; if (!(what)) { print_number("failed in line", __LINE__, 10); return 1; } } while (0)
#define ASM2(op, a, b) ({ u64 r; __asm__ volatile(op " %0, %1, %2" : "=r"(r) : "r"((u64)(a)), "r"((u64)(b))); r; })

int main(void)
{
    const u64 least = 1ul << 63;
    const u64 ones = ~0ul;
    u64 checks = 0;
    memory.doubles[0] = 0x8877665544332211;
    CHECK((s64)(signed char)memory.bytes[7] == -0x78);
    CHECK(memory.bytes[7] == 0x88);
    CHECK((s64)(short)memory.halves[3] == -0x7789);
    CHECK(memory.halves[3] == 0x8877);
    CHECK((s64)(s32)memory.words[1] == -0x778899ab);
    CHECK(memory.words[1] == 0x88776655);
    memory.bytes[0] = 0xaa;
    memory.halves[1] = 0xbbbb;
    memory.words[1] = 0xcccccccc;
    CHECK(memory.doubles[0] == 0xccccccccbbbb22aa);
    CHECK(ASM2("div", 7, 0) == ones);
    CHECK(ASM2("rem", 7, 0) == 7);
    CHECK(ASM2("divu", 7, 0) == ones);
    CHECK(ASM2("remu", 7, 0) == 7);
    CHECK(ASM2("div", least, ones) == least);
    CHECK(ASM2("rem", least, ones) == 0);
    CHECK(ASM2("divw", 0x80000000, ones) == 0xffffffff80000000);
    CHECK(ASM2("remw", 0x80000000, ones) == 0);
    CHECK(ASM2("divuw", ones, 0) == ones);
    CHECK(ASM2("remuw", 0x80000000, 0) == 0xffffffff80000000);
    CHECK(ASM2("div", -7, 2) == (u64)-3);
    CHECK(ASM2("rem", -7, 2) == (u64)-1);
    CHECK(ASM2("mulh", ones, ones) == 0);
    CHECK(ASM2("mulhu", ones, ones) == ones - 1);
    CHECK(ASM2("mulhsu", ones, ones) == ones);
    CHECK(ASM2("mulh", least, least) == 1ul << 62);
    CHECK(ASM2("sll", 1, 64 + 5) == 32);
    CHECK(ASM2("sllw", 1, 31) == 0xffffffff80000000);
    CHECK(ASM2("srlw", ones, 32) == ones);
    CHECK(ASM2("sra", least, 63) == ones);
    CHECK(ASM2("sraw", 0x80000000, 31) == ones);
    CHECK(ASM2("addw", 0x7fffffff, 1) == 0xffffffff80000000);
    CHECK(ASM2("slt", least, 0) == 1);
    CHECK(ASM2("sltu", least, 0) == 0);
    print_number("checks", checks, 10);
    return 0;
}
