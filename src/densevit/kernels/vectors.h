/* Vectors of float32, for the C files of the package: the extensions that GCC and Clang share. LANES is set before. */

#include <stdint.h>

typedef float floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static const float NEVER = -3.0e38f; /* below any logit */

static inline floats load(const float *at) { return *(const floats *)at; }

static inline void store(float *at, floats v) { *(floats *)at = v; }

static inline ints choose(ints mask, ints yes, ints no) { return (mask & yes) | (~mask & no); }

static inline floats pick(ints mask, floats yes, floats no) { return (floats)choose(mask, (ints)yes, (ints)no); }

/* 2 ** x for x <= 0, to 1e-7 of the value; NaN stays. */
static inline floats power(floats x) {
    x = pick(x < -126.0f, (floats){} - 126.0f, x);
    ints n = __builtin_convertvector(x - 0.5f, ints); /* towards zero: to the nearest */
    floats r = x - __builtin_convertvector(n, floats);
    floats p = r * 1.3276444e-3f + 9.6755377e-3f; /* minimax on [-0.5, 0.5] */
    p = p * r + 5.5507133e-2f;
    p = p * r + 2.4022120e-1f;
    p = p * r + 6.9314697e-1f;
    p = p * r + 1.0f;
    return (floats)((ints)p + (n << 23));
}

static const float FLOOR = -87.0f; /* e to this power is lost in any float sum */

/* e ** x for FLOOR <= x <= 0, to 2e-7 of the value: powers of two, and a polynomial for the rest. */
static inline floats exponential(floats x) {
    ints n = __builtin_convertvector(x * 1.44269504f - 0.5f, ints); /* towards zero: to the nearest, for x <= 0 */
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
