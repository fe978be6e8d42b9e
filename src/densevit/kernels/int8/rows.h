/* Rows of float32 as unsigned 8-bit integers with a scale and a zero point each: x ~ scale (u - zero).

   Before, each 64 values are multiplied by a Hadamard matrix, as weights are when they are packed, which changes no
   product but spreads values that are much larger than others. Define LANES, WIDE and PANEL first. */

#include <float.h>
#include <immintrin.h>
#include <math.h>

#include "vectors.h"

static const float SMALLEST = 1e-30f; /* values of a row that stays closer to zero are zero */

enum { PLAIN, NORM, GELU, GELU_TANH, QUICK_GELU, RELU, SWIGLU };

/* What happens to a row before it is quantised; eps, gain and shift are those of LayerNorm. */
typedef struct {
    int64_t kind;
    const float *gain, *shift;
    float eps;
} preparation;

/* Quantised rows, each so many bytes from the one before, with their scales and zero points. */
typedef struct {
    uint8_t *at;
    int64_t stride;
    float *scales;
    int32_t *zeros;
} tokens;

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static inline int64_t rounded(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

static inline floats splat(float x) { return (floats){} + x; }

/* Of two values the one or the other; NaN if the second is NaN. */
static inline floats lower(floats a, floats b) { return (floats)_mm512_min_ps((__m512)a, (__m512)b); }

static inline floats upper(floats a, floats b) { return (floats)_mm512_max_ps((__m512)a, (__m512)b); }

static inline float total(floats v) { return _mm512_reduce_add_ps((__m512)v); }

static inline __mmask16 first(int64_t count) { return count < LANES ? (1u << count) - 1 : 0xffff; }

/* The first floats, and zero in the other lanes. */
static inline floats load_some(const float *at, __mmask16 mask) { return (floats)_mm512_maskz_loadu_ps(mask, at); }

/* Activations have an error of 1e-4, a small part of the step of a quantised row. */
static inline floats sigmoid(floats x) {
    const floats t = upper(splat(-30.0f), lower(splat(30.0f), x * -1.44269504f));
    const floats whole = (floats)_mm512_roundscale_ps((__m512)t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const floats r = t - whole;
    floats p = r * 5.6166e-2f + 2.4261e-1f; /* 2 ** r on [-0.5, 0.5] */
    p = p * r + 6.93080e-1f;
    p = p * r + 9.99928e-1f;
    return (floats)_mm512_rcp14_ps((__m512)(1.0f + (floats)_mm512_scalef_ps((__m512)p, (__m512)whole)));
}

/* The normal distribution as an odd polynomial, which reaches 0.5 at 4.2. */
static inline floats gelu(floats x) {
    const floats z = upper(splat(-4.2f), lower(splat(4.2f), x)), s = z * z;
    floats p = s * -9.02044772e-10f + 7.94325956e-8f;
    p = p * s - 3.03844035e-6f;
    p = p * s + 6.68976281e-5f;
    p = p * s - 9.50708869e-4f;
    p = p * s + 9.29843076e-3f;
    p = p * s - 6.55285716e-2f;
    p = p * s + 3.98466110e-1f;
    return x * (p * z + 0.5f);
}

ALWAYS_INLINE floats activation(floats x, const int kind) {
    switch (kind) {
    case GELU: return gelu(x);
    case GELU_TANH: return x * sigmoid(x * (x * x * 0.0713548163f + 1.59576912f));
    case QUICK_GELU: return x * sigmoid(x * 1.702f);
    case RELU: return upper((floats){}, x);
    case SWIGLU: return x * sigmoid(x);
    default: return x;
    }
}

/* Mean of a row, and the inverse of its standard deviation. Several sums, because each addition waits for the last. */
static inline void moments(const float *x, int64_t depth, float eps, float *mean, float *factor) {
    floats sum[WIDE] = {}, squares[WIDE] = {};
    int64_t i = 0;
    for (; i + PANEL <= depth; i += PANEL)
        for (int j = 0; j < WIDE; j++) sum[j] += load(x + i + j * LANES);
    for (; i < depth; i += LANES) sum[0] += load_some(x + i, first(depth - i));
    *mean = total(sum[0] + sum[1] + sum[2] + sum[3]) / depth;
    for (i = 0; i + PANEL <= depth; i += PANEL)
        for (int j = 0; j < WIDE; j++) {
            const floats d = load(x + i + j * LANES) - *mean;
            squares[j] += d * d;
        }
    for (; i < depth; i += LANES) {
        const __mmask16 mask = first(depth - i);
        const floats d = (floats)_mm512_maskz_sub_ps(mask, (__m512)load_some(x + i, mask), (__m512)splat(*mean));
        squares[0] += d * d;
    }
    *factor = 1.0f / sqrtf(total(squares[0] + squares[1] + squares[2] + squares[3]) / depth + eps);
}

/* Each value plus the one at a distance of 1, 2, 4 or 8 lanes, or minus it in the upper half of a pair. */
#define BUTTERFLY(v, swapped, signs) (v) * signs + (floats)(swapped)
#define SIGNS(a, b, c, d) {1, a, b, (a) * (b), c, (c) * (a), (c) * (b), (c) * (a) * (b),                               \
                           d, (d) * (a), (d) * (b), (d) * (a) * (b), (d) * (c), (d) * (c) * (a), (d) * (c) * (b),      \
                           (d) * (c) * (a) * (b)}

/* 64 values times the Hadamard matrix of 1 and -1. */
static inline void hadamard(floats v[WIDE]) {
    const floats a = v[0] + v[1], b = v[0] - v[1], c = v[2] + v[3], d = v[2] - v[3];
    v[0] = a + c, v[1] = b + d, v[2] = a - c, v[3] = b - d;
    for (int j = 0; j < WIDE; j++) {
        v[j] = BUTTERFLY(v[j], _mm512_permute_ps((__m512)v[j], 0xb1), ((floats)SIGNS(-1, 1, 1, 1)));
        v[j] = BUTTERFLY(v[j], _mm512_permute_ps((__m512)v[j], 0x4e), ((floats)SIGNS(1, -1, 1, 1)));
        v[j] = BUTTERFLY(v[j], _mm512_shuffle_f32x4((__m512)v[j], (__m512)v[j], 0xb1), ((floats)SIGNS(1, 1, -1, 1)));
        v[j] = BUTTERFLY(v[j], _mm512_shuffle_f32x4((__m512)v[j], (__m512)v[j], 0x4e), ((floats)SIGNS(1, 1, 1, -1)));
    }
}

typedef struct {
    floats low, high; /* lane by lane; zero is in the range */
    floats spoilt;    /* zero, or NaN where a value was not finite */
} range;

static inline void extend(range *range, const floats v[WIDE]) {
    range->low = lower(lower(lower(v[0], v[1]), lower(v[2], v[3])), range->low);
    range->high = upper(upper(upper(v[0], v[1]), upper(v[2], v[3])), range->high);
    range->spoilt += v[3] * 0.0f + (v[2] * 0.0f + (v[1] * 0.0f + v[0] * 0.0f));
}

/* 64 values of a row, prepared. */
ALWAYS_INLINE void prepare_panel(const float *x, int64_t at, int64_t depth, preparation p, float mean, float factor,
                                 floats v[WIDE], const int kind, const int whole) {
    for (int j = 0; j < WIDE; j++, at += LANES) {
        const __mmask16 mask = whole ? 0xffff : depth > at ? first(depth - at) : 0;
        v[j] = load_some(x + at, mask);
        if (kind == NORM)
            v[j] = (v[j] - mean) * factor * load_some(p.gain + at, mask) + load_some(p.shift + at, mask);
        else
            v[j] = activation(v[j], kind);
        if (kind == SWIGLU) v[j] *= load_some(x + depth + at, mask);
    }
}

/* Write a row, prepared and rotated, to values, with zeros up to a whole panel, and return its range. */
ALWAYS_INLINE range prepare(const float *x, int64_t depth, preparation p, float *values, const int kind) {
    float mean = 0.0f, factor = 1.0f;
    if (kind == NORM) moments(x, depth, p.eps, &mean, &factor);
    range found = {{}, {}, {}};
    floats v[WIDE];
    int64_t i = 0;
    for (; i + PANEL <= depth; i += PANEL) {
        prepare_panel(x, i, depth, p, mean, factor, v, kind, 1);
        hadamard(v);
        extend(&found, v);
        for (int j = 0; j < WIDE; j++) store(values + i + j * LANES, v[j]);
    }
    if (i < depth) { /* fewer than 64 are not rotated, but become as large */
        prepare_panel(x, i, depth, p, mean, factor, v, kind, 0);
        for (int j = 0; j < WIDE; j++) v[j] *= 8.0f;
        extend(&found, v);
        for (int j = 0; j < WIDE; j++) store(values + i + j * LANES, v[j]);
    }
    return found;
}

/* Quantise a row of depth floats, or 2 depth of SwiGLU, as row r; values has room for it in whole panels. */
static void quantise(const float *x, int64_t depth, preparation p, float *values, tokens out, int64_t r) {
    range found;
    switch (p.kind) {
    case NORM: found = prepare(x, depth, p, values, NORM); break;
    case GELU: found = prepare(x, depth, p, values, GELU); break;
    case GELU_TANH: found = prepare(x, depth, p, values, GELU_TANH); break;
    case QUICK_GELU: found = prepare(x, depth, p, values, QUICK_GELU); break;
    case RELU: found = prepare(x, depth, p, values, RELU); break;
    case SWIGLU: found = prepare(x, depth, p, values, SWIGLU); break;
    default: found = prepare(x, depth, p, values, PLAIN);
    }
    const float low = _mm512_reduce_min_ps((__m512)found.low);
    const float width = _mm512_reduce_max_ps((__m512)found.high) - low;
    const int finite = total(found.spoilt) == 0.0f && width <= FLT_MAX;
    const float factor = finite && width > SMALLEST ? 255.0f / width : 0.0f, zero = rintf(-low * factor);
    out.scales[r] = !finite ? NAN : factor > 0.0f ? width * (1 / 255.0f) : 0.0f;
    out.zeros[r] = finite ? (int32_t)zero : 0;
    uint8_t *to = out.at + r * out.stride;
    for (int64_t i = 0; i < depth; i += PANEL) {
        __m512i n[WIDE];
        for (int j = 0; j < WIDE; j++) n[j] = _mm512_cvtps_epi32((__m512)(load(values + i + j * LANES) * factor + zero));
        /* Narrowed four by four lanes, with what is out of range moved to its ends. */
        const __m512i mixed = _mm512_packus_epi16(_mm512_packus_epi32(n[0], n[1]), _mm512_packus_epi32(n[2], n[3]));
        const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        _mm512_storeu_si512(to + i, _mm512_permutexvar_epi32(order, mixed));
    }
}
