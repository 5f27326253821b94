/*
 * Patches call sites the way a kernel's boot-time loop does: one record after the other, the new bytes built in a buffer,
 * the rest of the site filled with nops, the buffer copied over the site. The rival that PvPatch is measured against.
 *
 * It keeps to what such a loop must do and no more: old bytes are not looked at, the reach of a call is not checked.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum op_kind { OP_NOP, OP_INLINE, OP_CALL };

#define MAX_PATCH 254
#define CALL_LENGTH 5
#define LONGEST_NOP 8
#define LEFT_ALONE (~0u)

/* Laid out as SiteRecord and OpRecord in CLoop.cs. */
struct site {
	uint64_t address;	/* where the site runs */
	uint16_t slot;
	uint8_t length;
	uint8_t unused;
	uint32_t clobbers;	/* what may be destroyed there */
};

struct op {
	uint32_t kind;
	uint32_t destroys;
	uint32_t length;	/* of the body */
	uint8_t body[12];
};

/* nop r/m of every length, as the processor manuals recommend. */
static const uint8_t nops[LONGEST_NOP + 1][LONGEST_NOP] = {
	{ 0 },
	{ 0x90 },
	{ 0x66, 0x90 },
	{ 0x0f, 0x1f, 0x00 },
	{ 0x0f, 0x1f, 0x40, 0x00 },
	{ 0x0f, 0x1f, 0x44, 0x00, 0x00 },
	{ 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00 },
	{ 0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00 },
	{ 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00 },
};

static void add_nops(uint8_t *to, unsigned int length)
{
	while (length > 0) {
		unsigned int n = length < LONGEST_NOP ? length : LONGEST_NOP;

		memcpy(to, nops[n], n);
		to += n;
		length -= n;
	}
}

static unsigned int make_call(uint8_t *buffer, uint64_t site, uint64_t target)
{
	int32_t displacement = (int32_t)(target - (site + CALL_LENGTH));

	buffer[0] = 0xe8; /* call rel32 */
	memcpy(buffer + 1, &displacement, sizeof(displacement));
	return CALL_LENGTH;
}

/* How much of the buffer was used, or LEFT_ALONE. */
static unsigned int patch(uint8_t *buffer, const struct site *site, const struct op *op, const uint64_t *targets)
{
	if (op->destroys & ~site->clobbers)
		return LEFT_ALONE;

	switch (op->kind) {
	case OP_NOP:
		return 0;
	case OP_INLINE:
		if (op->length > site->length)
			return LEFT_ALONE;
		memcpy(buffer, op->body, op->length);
		return op->length;
	case OP_CALL:
		if (site->length < CALL_LENGTH)
			return LEFT_ALONE;
		return make_call(buffer, site->address, targets[site->slot]);
	default:
		return LEFT_ALONE;
	}
}

void kernel_loop(uint8_t *text, uint64_t text_address, const struct site *sites, size_t count, const struct op *ops, const uint64_t *targets)
{
	uint8_t buffer[MAX_PATCH];
	size_t i;

	for (i = 0; i < count; i++) {
		const struct site *site = &sites[i];
		uint8_t *at = text + (site->address - text_address);
		unsigned int used;

		used = patch(buffer, site, &ops[site->slot], targets);
		if (used == LEFT_ALONE)
			continue;
		add_nops(buffer + used, site->length - used);
		memcpy(at, buffer, site->length);
	}
}
