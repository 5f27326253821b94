/* Heap sort and quick sort of the same numbers must agree: branches that nobody can foresee. */
#include "../guest.h"

#ifndef ROUNDS
#define ROUNDS 300
#endif
#define COUNT 4000

static s32 first[COUNT];
static s32 second[COUNT];

static void swap(s32 *a, s32 *b)
{
    s32 c = *a;
    *a = *b;
    *b = c;
}

static void sift(s32 *a, int root, int end)
{
    for (int child; (child = 2 * root + 1) < end; root = child) {
        if (child + 1 < end && a[child] < a[child + 1])
            child++;
        if (a[root] >= a[child])
            return;
        swap(&a[root], &a[child]);
    }
}

static void heap_sort(s32 *a, int count)
{
    for (int i = count / 2; i-- > 0;)
        sift(a, i, count);
    for (int end = count; end-- > 1;) {
        swap(&a[0], &a[end]);
        sift(a, 0, end);
    }
}

static void quick_sort(s32 *a, int low, int high)
{
    if (low >= high)
        return;
    s32 pivot = a[low + (high - low) / 2];
    int i = low, j = high;
    while (i <= j) {
        while (a[i] < pivot)
            i++;
        while (a[j] > pivot)
            j--;
        if (i <= j)
            swap(&a[i++], &a[j--]);
    }
    quick_sort(a, low, j);
    quick_sort(a, i, high);
}

int main(void)
{
    u64 state = 1;
    u64 sum = 0;
    for (u32 round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < COUNT; i++) {
            state = state * 6364136223846793005ul + 1442695040888963407ul;
            first[i] = second[i] = (s32)(state >> 32);
        }
        heap_sort(first, COUNT);
        quick_sort(second, 0, COUNT - 1);
        for (int i = 0; i < COUNT; i++) {
            if (first[i] != second[i] || (i && first[i - 1] > first[i]))
                return 1;
            sum = sum * 31 + (u64)first[i];
        }
    }
    print_number("sorted", sum, 16);
    return 0;
}
