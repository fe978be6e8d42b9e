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
