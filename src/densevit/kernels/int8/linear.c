/* Linear layers on rows of unsigned 8-bit integers, for processors with AVX-512 VNNI.

   Each row is quantised where it is needed, after LayerNorm or an activation, with a scale and a zero point of its
   own: x ~ scale (u - zero). Before, each 64 values are multiplied by a Hadamard matrix, as the weights were, which
   changes no product but spreads values that are much larger than others. Weights are signed, with a scale for each
   output. Sums of integers are exact; scales, bias and a residual are applied to them in float32.

   Six rows are multiplied by a panel of 64 outputs at a time, with 24 sums in registers, and many rows share a panel
   while they are in the cache. The product is in assembly because GCC 12 spills the sums of its own intrinsic.

   Compiled on first use by densevit.kernels.build, for GCC and Clang. */

#include <float.h>
#include <immintrin.h>
#include <math.h>
#include <stdint.h>

#define LANES 16
#define TALL 6 /* a tile has 6 rows of 4 vectors */
#define WIDE 4
#define PANEL (WIDE * LANES)
#define QUAD 4            /* products that a lane adds at once */
#define BLOCK (40 * TALL) /* rows multiplied by a panel while they are in the cache */
#define BLOCK_BYTES 400000 /* of a block of longer rows */
#define LINE 64

#include "vectors.h"

#define NOT_FINITE 0x99 /* both NaN and both infinities */

static const float SMALLEST = 1e-30f; /* values of a row that stays closer to zero are zero */

/* Panels (width / PANEL, depth / QUAD, PANEL, QUAD); sums of the weights, scales and bias of each output. */
typedef struct {
    int64_t depth, width;
    const int8_t *panels;
    const int32_t *sums;
    const float *scales, *bias;
} layer;

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

/* Write a row, prepared, to values, with zeros up to a whole vector. */
ALWAYS_INLINE void prepare(const float *x, int64_t depth, preparation p, float *values, const int kind) {
    float mean = 0.0f, factor = 1.0f;
    if (kind == NORM) {
        floats sum = {}, squares = {};
        for (int64_t i = 0; i < depth; i += LANES) sum += load_some(x + i, first(depth - i));
        mean = total(sum) / depth;
        for (int64_t i = 0; i < depth; i += LANES) {
            const __mmask16 mask = first(depth - i);
            const floats d = (floats)_mm512_maskz_sub_ps(mask, (__m512)load_some(x + i, mask), (__m512)splat(mean));
            squares += d * d;
        }
        factor = 1.0f / sqrtf(total(squares) / depth + p.eps);
    }
    for (int64_t i = 0; i < depth; i += LANES) {
        const __mmask16 mask = first(depth - i);
        floats v = load_some(x + i, mask);
        if (kind == NORM)
            v = (v - mean) * factor * load_some(p.gain + i, mask) + load_some(p.shift + i, mask);
        else
            v = activation(v, kind);
        if (kind == SWIGLU) v *= load_some(x + depth + i, mask);
        store(values + i, v);
    }
}

/* Each value plus the one at a distance of 1, 2, 4 or 8 lanes, or minus it in the upper half of a pair. */
#define BUTTERFLY(v, swapped, upper)                                                                                   \
    (floats)_mm512_mask_sub_ps(_mm512_add_ps((__m512)(v), swapped), upper, swapped, (__m512)(v))

/* 64 values times the Hadamard matrix of 1 and -1. */
static inline void hadamard(floats v[WIDE]) {
    const floats a = v[0] + v[1], b = v[0] - v[1], c = v[2] + v[3], d = v[2] - v[3];
    v[0] = a + c, v[1] = b + d, v[2] = a - c, v[3] = b - d;
    for (int j = 0; j < WIDE; j++) {
        v[j] = BUTTERFLY(v[j], _mm512_permute_ps((__m512)v[j], 0xb1), 0xaaaa);
        v[j] = BUTTERFLY(v[j], _mm512_permute_ps((__m512)v[j], 0x4e), 0xcccc);
        v[j] = BUTTERFLY(v[j], _mm512_shuffle_f32x4((__m512)v[j], (__m512)v[j], 0xb1), 0xf0f0);
        v[j] = BUTTERFLY(v[j], _mm512_shuffle_f32x4((__m512)v[j], (__m512)v[j], 0x4e), 0xff00);
    }
}

/* Quantise a row of depth floats, or 2 depth of SwiGLU, as row r; values has room for it in whole vectors. */
static void quantise(const float *x, int64_t depth, preparation p, float *values, tokens out, int64_t r) {
    switch (p.kind) {
    case NORM: prepare(x, depth, p, values, NORM); break;
    case GELU: prepare(x, depth, p, values, GELU); break;
    case GELU_TANH: prepare(x, depth, p, values, GELU_TANH); break;
    case QUICK_GELU: prepare(x, depth, p, values, QUICK_GELU); break;
    case RELU: prepare(x, depth, p, values, RELU); break;
    case SWIGLU: prepare(x, depth, p, values, SWIGLU); break;
    default: prepare(x, depth, p, values, PLAIN);
    }
    floats lowest = {}, highest = {}; /* zero is in the range */
    __mmask16 bad = 0;
    int64_t i = 0;
    for (; i + PANEL <= depth; i += PANEL) {
        floats v[WIDE];
        for (int j = 0; j < WIDE; j++) v[j] = load(values + i + j * LANES);
        hadamard(v);
        for (int j = 0; j < WIDE; j++) {
            lowest = lower(v[j], lowest);
            highest = upper(v[j], highest);
            bad |= _mm512_fpclass_ps_mask((__m512)v[j], NOT_FINITE);
            store(values + i + j * LANES, v[j]);
        }
    }
    for (; i < depth; i += LANES) { /* fewer than 64 */
        const floats v = load(values + i) * 8.0f; /* as large as the others became */
        lowest = lower(v, lowest);
        highest = upper(v, highest);
        bad |= _mm512_fpclass_ps_mask((__m512)v, NOT_FINITE);
        store(values + i, v);
    }
    const float low = _mm512_reduce_min_ps((__m512)lowest), range = _mm512_reduce_max_ps((__m512)highest) - low;
    const int finite = !bad && range <= FLT_MAX;
    const float factor = finite && range > SMALLEST ? 255.0f / range : 0.0f, zero = rintf(-low * factor);
    out.scales[r] = !finite ? NAN : factor > 0.0f ? range / 255.0f : 0.0f;
    out.zeros[r] = finite ? (int32_t)zero : 0;
    for (i = 0; i < depth; i += LANES) {
        const floats u = load(values + i) * factor + zero;
        const __m512i n = _mm512_max_epi32(_mm512_cvtps_epi32((__m512)u), _mm512_setzero_si512());
        _mm_storeu_si128((__m128i *)(out.at + r * out.stride + i), _mm512_cvtusepi32_epi8(n));
    }
}

/* sum + u v, of 4 unsigned and 4 signed 8-bit integers in each lane */
ALWAYS_INLINE __m512i add_products(__m512i sum, __m512i u, __m512i v) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u), "v"(v));
    return sum;
}

/* Outputs from column c of a layer for the first count of TALL rows, of which r is the first. */
static void tile(tokens x, int64_t r, int64_t count, const layer *l, int64_t c, const float *residual,
                 int64_t residual_stride, float *out, int64_t stride) {
    const int64_t depth = rounded(l->depth, QUAD);
    const uint8_t *u = x.at + r * x.stride;
    const int8_t *panel = l->panels + c * depth;
    __m512i sums[TALL][WIDE];
    for (int i = 0; i < TALL; i++)
        for (int j = 0; j < WIDE; j++)
            sums[i][j] = _mm512_mullo_epi32(_mm512_loadu_si512(l->sums + c + j * LANES),
                                            _mm512_set1_epi32(-x.zeros[r + i]));
    for (int64_t k = 0; k < depth; k += QUAD) {
        __m512i w[WIDE];
        for (int j = 0; j < WIDE; j++) w[j] = _mm512_loadu_si512(panel + k * PANEL + j * LANES * QUAD);
        for (int i = 0; i < TALL; i++) {
            const __m512i quad = _mm512_set1_epi32(*(const int32_t *)(u + i * x.stride + k));
            for (int j = 0; j < WIDE; j++) sums[i][j] = add_products(sums[i][j], quad, w[j]);
        }
    }
    float part[TALL * PANEL], *at = out + c;
    const float *added = residual ? residual + c : residual;
    const int fits = count >= TALL && l->width - c >= PANEL;
    for (int j = 0; j < WIDE; j++) {
        const floats scale = load(l->scales + c + j * LANES), bias = load(l->bias + c + j * LANES);
        for (int i = 0; i < TALL; i++) {
            floats y = (floats)_mm512_cvtepi32_ps(sums[i][j]) * x.scales[r + i] * scale + bias;
            if (fits && added) y += load(added + i * residual_stride + j * LANES);
            store(fits ? at + i * stride + j * LANES : part + i * PANEL + j * LANES, y);
        }
    }
    for (int64_t i = 0; i < least(TALL, count) && !fits; i++)
        for (int64_t j = 0; j < least(PANEL, l->width - c); j++)
            at[i * stride + j] = part[i * PANEL + j] + (added ? added[i * residual_stride + j] : 0.0f);
}

/* Size in bytes of packed weights (width, depth). */
int64_t densevit_int8_panels(int64_t depth, int64_t width) { return rounded(width, PANEL) * rounded(depth, QUAD); }

/* Pack weights (width, depth) into panels, zero beyond both, and add up those of each output (whole panels). */
void densevit_int8_pack(const int8_t *weights, int64_t depth, int64_t width, int8_t *panels, int32_t *sums) {
    for (int64_t c = 0; c < rounded(width, PANEL); c++) {
        sums[c] = 0;
        for (int64_t k = 0; k < rounded(depth, QUAD); k++) {
            const int8_t w = c < width && k < depth ? weights[c * depth + k] : 0;
            const int64_t panel = c / PANEL * PANEL * rounded(depth, QUAD);
            panels[panel + k / QUAD * QUAD * PANEL + c % PANEL * QUAD + k % QUAD] = w;
            sums[c] += w;
        }
    }
}

static int64_t byte_stride(int64_t depth) { return rounded(depth, LINE) + LINE; } /* odd, to use all sets of a cache */

static int64_t block_rows(const layer *layers, int64_t num_layers) {
    int64_t rows = BLOCK;
    for (int64_t i = 0; i < num_layers; i++) rows = least(rows, BLOCK_BYTES / byte_stride(layers[i].depth));
    return rows < TALL ? TALL : rows / TALL * TALL;
}

/* Bytes of scratch memory for a chain of layers. */
int64_t densevit_int8_scratch(const layer *layers, int64_t num_layers) {
    int64_t depth = 0, hidden = 0;
    for (int64_t i = 0; i < num_layers; i++) {
        depth = layers[i].depth > depth ? layers[i].depth : depth;
        if (i + 1 < num_layers) hidden = layers[i].width > hidden ? layers[i].width : hidden;
    }
    return block_rows(layers, num_layers) * (byte_stride(depth) + 8 + 4 * hidden) + 4 * rounded(depth, LANES) + 5 * LINE;
}

static void *take(char **scratch, int64_t bytes) {
    char *at = (char *)(((uintptr_t)*scratch + LINE - 1) / LINE * LINE);
    *scratch = at + bytes;
    return at;
}

/* Run rows x (count, depth of the first layer) through a chain of layers, each after its preparation, add a residual
   unless it is null, and write out (count, width of the last). Strides are in floats. */
void densevit_int8_layers(const float *x, int64_t x_stride, int64_t count, const preparation *preparations,
                          const layer *layers, int64_t num_layers, const float *residual, int64_t residual_stride,
                          float *out, int64_t out_stride, char *scratch) {
    const int64_t block = block_rows(layers, num_layers);
    int64_t depth = 0;
    for (int64_t i = 0; i < num_layers; i++) depth = layers[i].depth > depth ? layers[i].depth : depth;
    tokens u;
    u.scales = take(&scratch, block * sizeof(float));
    u.zeros = take(&scratch, block * sizeof(int32_t));
    float *values = take(&scratch, rounded(depth, LANES) * sizeof(float));
    u.at = take(&scratch, block * byte_stride(depth));
    float *hidden = take(&scratch, 0);
    for (int64_t start = 0; start < count; start += block) {
        const int64_t rows = least(block, count - start);
        const float *from = x + start * x_stride;
        int64_t from_stride = x_stride;
        for (int64_t i = 0; i < num_layers; i++) {
            const layer *l = layers + i;
            const int last = i + 1 == num_layers;
            const float *added = last && residual ? residual + start * residual_stride : 0;
            float *to = last ? out + start * out_stride : hidden;
            const int64_t to_stride = last ? out_stride : l->width;
            u.stride = byte_stride(l->depth);
            for (int64_t r = 0; r < rows; r++)
                quantise(from + r * from_stride, l->depth, preparations[i], values, u, r);
            for (int64_t r = rows; r < rounded(rows, TALL); r++) u.zeros[r] = 0; /* of rows that only fill a tile */
            for (int64_t c = 0; c < l->width; c += PANEL)
                for (int64_t r = 0; r < rows; r += TALL)
                    tile(u, r, rows - r, l, c, added ? added + r * residual_stride : 0, residual_stride,
                         to + r * to_stride, to_stride);
            from = hidden, from_stride = l->width;
        }
    }
}
