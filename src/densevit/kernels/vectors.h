/* Vectors of float32 for the package's C files, by the extensions that GCC and Clang share. Define LANES first. */

#include <stdint.h>

typedef float floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* For tiles whose loop bounds are arguments: only inlined are they constants, and their sums stay in registers. */
#define ALWAYS_INLINE __attribute__((always_inline)) static inline

static const float NEVER = -3.0e38f; /* below any logit */

static inline floats load(const float *at) { return *(const floats *)at; }

static inline void store(float *at, floats v) { *(floats *)at = v; }

static inline ints choose(ints mask, ints yes, ints no) { return (mask & yes) | (~mask & no); }

static inline floats pick(ints mask, floats yes, floats no) { return (floats)choose(mask, (ints)yes, (ints)no); }

static inline floats greater(floats a, floats b) { return pick(a > b, a, b); }

/* The vector's halves, quarters and so on are combined, in four steps instead of LANES. */
static inline float greatest(floats v) {
    float lanes[LANES];
    store(lanes, v);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
    return lanes[0];
}

static inline float total_of(floats v) {
    float lanes[LANES];
    store(lanes, v);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
    return lanes[0];
}

/* 2 ** x for x <= 0, with a relative error of 1e-7; NaN stays NaN. */
static inline floats power(floats x) {
    x = pick(x < -126.0f, (floats){} - 126.0f, x);
    ints n = __builtin_convertvector(x - 0.5f, ints); /* truncation: the nearest integer, for x <= 0 */
    floats r = x - __builtin_convertvector(n, floats);
    floats p = r * 1.3276444e-3f + 9.6755377e-3f; /* minimax on [-0.5, 0.5] */
    p = p * r + 5.5507133e-2f;
    p = p * r + 2.4022120e-1f;
    p = p * r + 6.9314697e-1f;
    p = p * r + 1.0f;
    return (floats)((ints)p + (n << 23));
}

static const float FLOOR = -87.0f; /* e to this power vanishes in any float sum */

/* e ** x for FLOOR <= x <= 0, with a relative error of 2e-7: a power of two times a polynomial of the remainder. */
static inline floats exponential(floats x) {
    ints n = __builtin_convertvector(x * 1.44269504f - 0.5f, ints); /* truncation: the nearest integer */
    floats whole = __builtin_convertvector(n, floats);
    floats r = x - whole * 0.693359375f + whole * 2.12194440e-4f; /* ln 2 in two parts */
    floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (floats)((n + 127) << 23);
}

#if LANES == 16

#ifdef __clang__
#define MIX(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define MIX(a, b, ...) __builtin_shuffle(a, b, (ints){__VA_ARGS__})
#endif
#define UNPACK(...) __VA_ARGS__

/* Exchange the halves of all pairs of vectors whose numbers differ by step only: four steps transpose 16 by 16. */
#define STEP(step, low, high)                                          \
    for (int i = 0; i < LANES; i++)                                    \
        if (!(i & step)) {                                             \
            const floats a = v[i], b = v[i + step];                    \
            v[i] = MIX(a, b, UNPACK low);                              \
            v[i + step] = MIX(a, b, UNPACK high);                      \
        }

/* 16 rows of 16 values, transposed. */
static inline void transpose(const float *from, int64_t from_row, float *to, int64_t to_row) {
    floats v[LANES];
    for (int i = 0; i < LANES; i++) v[i] = load(from + i * from_row);
    STEP(1, (0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30), (1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
    STEP(2, (0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29), (2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
    STEP(4, (0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27), (4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
    STEP(8, (0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23), (8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
    for (int i = 0; i < LANES; i++) store(to + i * to_row, v[i]);
}

#endif
