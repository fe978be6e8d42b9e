/* GELU, x times the normal distribution function of x, and its derivative, in float32.

   The share of the distribution beyond |x| is exp(-x * x / 2) times a polynomial in 1 / (1 + 0.35 |x|), fitted to 3e-8 of
   its value; so small results keep their relative accuracy, and function and derivative need one exponential together.

   Compiled by densevit.kernels.build where a C compiler is found: plain C with the vector extensions that GCC and Clang
   share. */

#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif

typedef float floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static const float FLOOR = -87.0f;

static inline floats load(const float *at) { return *(const floats *)at; }

static inline void store(float *at, floats v) { *(floats *)at = v; }

static inline floats pick(ints mask, floats yes, floats no) { return (floats)((mask & (ints)yes) | (~mask & (ints)no)); }

/* e ** x for FLOOR <= x <= 0, to 2e-7 of the value; NaN stays. */
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

/* The distribution function at x, and its density. */
static inline floats distribution(floats x, floats *density) {
    floats size = pick(x < 0.0f, -x, x), power = x * x * -0.5f;
    power = exponential(pick(power < FLOOR, (floats){} + FLOOR, power));
    floats t = 1.0f / (size * 0.35f + 1.0f);
    floats p = t * -2.91266620e-02f + 1.43875981e-01f;
    p = p * t + -2.55511987e-01f;
    p = p * t + 1.58937349e-01f;
    p = p * t + -2.29423497e-02f;
    p = p * t + 1.05434978e-01f;
    p = p * t + 1.19851968e-01f;
    p = p * t + 1.39859140e-01f;
    p = p * t + 1.39621567e-01f;
    floats beyond = power * t * p;
    *density = power * 0.398942280f;
    return pick(x < 0.0f, beyond, 1.0f - beyond);
}

static inline floats value(floats x) {
    floats density;
    return x * distribution(x, &density);
}

/* out = gelu(x), count floats. */
void densevit_gelu(const float *x, float *out, int64_t count) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) store(out + i, value(load(x + i)));
    if (i < count) {
        float rest[LANES] = {0};
        memcpy(rest, x + i, (count - i) * sizeof(float));
        store(rest, value(load(rest)));
        memcpy(out + i, rest, (count - i) * sizeof(float));
    }
}

static inline void both(const float *x, float *gradient, float *out) {
    floats density, v = load(x), share = distribution(v, &density);
    store(out, v * share);
    store(gradient, load(gradient) * (share + v * density));
}

/* out = gelu(x), and gradient times the derivative in place. */
void densevit_gelu_backward(const float *x, float *gradient, float *out, int64_t count) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) both(x + i, gradient + i, out + i);
    if (i < count) {
        const int64_t size = (count - i) * sizeof(float);
        float rest[LANES] = {0}, slope[LANES] = {0}, made[LANES];
        memcpy(rest, x + i, size);
        memcpy(slope, gradient + i, size);
        both(rest, slope, made);
        memcpy(gradient + i, slope, size);
        memcpy(out + i, made, size);
    }
}
