/* The functions a compiler may call on its own. */
typedef unsigned long size;

void *memset(void *to, int value, size length)
{
    unsigned char *p = to;
    while (length--)
        *p++ = (unsigned char)value;
    return to;
}

void *memcpy(void *to, const void *from, size length)
{
    unsigned char *p = to;
    const unsigned char *q = from;
    while (length--)
        *p++ = *q++;
    return to;
}
