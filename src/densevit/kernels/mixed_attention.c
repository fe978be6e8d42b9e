/* softmax(q k' / sqrt(width)) v with products of fewer bits, for processors with AVX-512 VNNI and BF16.

   As attention.c, six queries at a time meet blocks of keys, and maximum and sum are carried from block to block.
   Weights and values are rounded to bfloat16, and so are queries and keys; or these are 8-bit integers, signed with a
   scale per query and unsigned with a scale per key. Before, each channel's mean over all keys is taken from them: that
   adds the same to all logits of a query, which the softmax cancels, and leaves small numbers with small steps. Sums
   are 32 bits wide.

   The two products are inline assembly because GCC 12 moves their sums to memory and back when they are intrinsics.

   Compiled on first use by densevit.kernels.build, for x86 only: C with the vector extensions that GCC and Clang share,
   and a few intrinsics. */

#include <immintrin.h>
#include <stdint.h>

#define LANES 16
#define ROWS 6            /* queries of a tile */
#define VECTORS 4         /* vectors of a panel: 64 keys of a tile of logits, 64 channels of a tile of results */
#define PANEL (VECTORS * LANES)
#define KEYS 256          /* a multiple of PANEL */
#define BLOCK (40 * ROWS) /* queries packed at once */
#define WIDEST 8          /* vectors of the widest head */

#include "vectors.h"

enum { INT8, BFLOAT16 }; /* the form of queries and keys */

typedef int8_t bytes __attribute__((vector_size(LANES), aligned(1), may_alias));

static const float LOG2_E = 1.44269504f;
static const float SMALLEST = 1e-30f; /* of the largest value of a row, so that no scale is zero */

/* sum + the four products of u (unsigned) and s (signed) in each lane; sum holds integers, whatever its type. */
ALWAYS_INLINE floats dot_bytes(floats sum, ints u, ints s) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u), "v"(s));
    return sum;
}

/* sum + the two products of a and b in each lane. */
ALWAYS_INLINE floats dot_pairs(floats sum, ints a, ints b) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
}

/* 32 numbers as bfloat16. */
ALWAYS_INLINE ints rounded(floats low, floats high) {
    ints out;
    __asm__("vcvtne2ps2bf16 %1, %2, %0" : "=v"(out) : "v"(low), "v"(high));
    return out;
}

ALWAYS_INLINE ints load_words(const int32_t *at) { return *(const ints *)at; }
ALWAYS_INLINE void store_words(int32_t *at, ints v) { *(ints *)at = v; }
ALWAYS_INLINE floats larger(floats a, floats b) { return (floats)_mm512_max_ps((__m512)a, (__m512)b); }
ALWAYS_INLINE floats magnitude(floats x) { return (floats)((ints)x & 0x7fffffff); }

/* 2 ** x for x <= 0, with a relative error of 8e-5, a twentieth of bfloat16's; NaN stays NaN. */
ALWAYS_INLINE floats coarse_power(floats x) {
    floats r = (floats)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); /* x - floor(x) */
    floats p = r * 7.80245231e-2f + 2.26067168e-1f; /* minimax on [0, 1] */
    p = p * r + 6.95833529e-1f;
    p = p * r + 9.99925220e-1f;
    return (floats)_mm512_scalef_ps((__m512)p, (__m512)x);
}

typedef struct {
    const float *at;
    int64_t token; /* distance from one token to the next, in floats */
} rows;

/* What a head's tokens are packed into. Words are of 32 bits: four integers or two bfloat16. */
typedef struct {
    int32_t *keys;    /* (panels, words, PANEL) */
    float *key_scales; /* (tokens rounded up to panels), of integers */
    int32_t *values;  /* (pairs of tokens, width) */
    int32_t *queries; /* (BLOCK, words) */
    float *result;    /* (BLOCK, width) */
    float *logits;    /* (ROWS, KEYS) */
    int32_t *weights; /* (ROWS, KEYS / 2) */
} scratch;

static scratch divided(float *memory, int64_t tokens, int64_t width, int64_t *total) {
    const int64_t padded = (tokens + PANEL - 1) / PANEL * PANEL;
    scratch s;
    s.logits = memory;
    s.weights = (int32_t *)(s.logits + ROWS * KEYS);
    s.keys = s.weights + ROWS * KEYS / 2;
    s.values = s.keys + padded * width / 2; /* as many as bfloat16 needs */
    s.queries = s.values + padded * width / 2;
    s.result = (float *)(s.queries + BLOCK * width / 2);
    s.key_scales = s.result + BLOCK * width;
    *total = s.key_scales + padded - memory;
    return s;
}

/* Floats of scratch memory for a head. */
int64_t densevit_mixed_attention_scratch(int64_t tokens, int64_t width) {
    int64_t total;
    divided(0, tokens, width, &total);
    return total;
}

/* Integers of magnitude up to 127 for one row, plus offset; returns their scale, NaN where a value is not finite. */
static inline float quantised(const float *x, const float *mean, int vectors, int offset, int32_t *out) {
    floats centred[WIDEST], largest = {}, spoilt = {};
    for (int c = 0; c < vectors; c++) {
        centred[c] = load(x + c * LANES) - load(mean + c * LANES);
        largest = larger(largest, magnitude(centred[c]));
        spoilt += centred[c] * 0.0f;
    }
    float high = _mm512_reduce_max_ps((__m512)largest);
    high = high > SMALLEST ? high : SMALLEST;
    for (int c = 0; c < vectors; c++) {
        ints whole = (ints)_mm512_cvtps_epi32((__m512)(centred[c] * (127.0f / high))) + offset;
        ((bytes *)out)[c] = __builtin_convertvector(whole, bytes);
    }
    return high / 127.0f + _mm512_reduce_add_ps((__m512)spoilt);
}

/* One row times factor as bfloat16. */
static inline void halved(const float *x, int vectors, float factor, int32_t *out) {
    for (int c = 0; c < vectors; c++) {
        ints pair = rounded(load(x + c * LANES) * factor, (floats){});
        *(__m256i *)(out + c * LANES / 2) = _mm512_castsi512_si256((__m512i)pair);
    }
}

static void pack_keys(rows k, int tokens, int vectors, const int form, scratch s) {
    const int width = vectors * LANES, words = form == INT8 ? width / 4 : width / 2;
    const int padded = (tokens + PANEL - 1) / PANEL * PANEL;
    float mean[WIDEST * LANES] = {};
    int32_t row[WIDEST * LANES / 2];
    if (form == INT8) {
        for (int n = 0; n < tokens; n++)
            for (int c = 0; c < width; c += LANES) store(mean + c, load(mean + c) + load(k.at + n * k.token + c));
        for (int c = 0; c < width; c++) mean[c] /= tokens;
    }
    for (int n = 0; n < padded; n++) { /* the last token fills the panel: it does not change any maximum */
        const float *key = k.at + (n < tokens ? n : tokens - 1) * k.token;
        if (form == INT8)
            s.key_scales[n] = quantised(key, mean, vectors, 128, row);
        else
            halved(key, vectors, 1.0f, row);
        int32_t *to = s.keys + (int64_t)(n / PANEL) * PANEL * words + n % PANEL;
        for (int i = 0; i < words; i++) to[i * PANEL] = row[i];
    }
}

/* Two tokens' values of a channel share a word; there are none beyond the last token. */
static void pack_values(rows v, int tokens, int width, int32_t *values) {
    const ints order = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const __m512i interleaved = (__m512i)(order | (order + LANES) << 16);
    for (int n = 0; n < tokens; n += 2)
        for (int c = 0; c < width; c += LANES) {
            const float *at = v.at + n * v.token + c;
            ints pair = rounded(load(at), n + 1 < tokens ? load(at + v.token) : (floats){});
            store_words(values + (int64_t)(n / 2) * width + c,
                        (ints)_mm512_permutexvar_epi16(interleaved, (__m512i)pair));
        }
}

/* Packs up to BLOCK queries, zero beyond count. Logits are the sums, which begin with start, times scale. */
static void pack_queries(rows q, int count, int vectors, float scale, const int form, scratch s, float *scales,
                         int32_t *start) {
    static const float zeros[WIDEST * LANES];
    const int words = vectors * LANES / (form == INT8 ? 4 : 2);
    for (int r = 0; r < BLOCK; r++) {
        const float *x = r < count ? q.at + r * q.token : zeros;
        int32_t *row = s.queries + r * words;
        start[r] = 0;
        scales[r] = 1.0f;
        if (form == INT8) {
            scales[r] = quantised(x, zeros, vectors, 0, row) * scale;
            for (int c = 0; c < vectors * LANES; c++) start[r] -= 128 * ((int8_t *)row)[c]; /* the keys' offset */
        } else {
            halved(x, vectors, scale, row);
        }
    }
}

/* Logits of ROWS queries and vectors * LANES keys, not scaled by the queries' scales; raises each row's highest. */
ALWAYS_INLINE void logits_tile(const int32_t *queries, const int32_t *start, int words, const int32_t *keys,
                               const float *key_scales, float *out, floats *highest, const int vectors,
                               const int form) {
    floats sum[ROWS][VECTORS];
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < vectors; j++) sum[r][j] = (floats)((ints){} + start[r]);
    for (int i = 0; i < words; i++) {
        ints b[VECTORS];
        for (int j = 0; j < vectors; j++) b[j] = load_words(keys + i * PANEL + j * LANES);
        for (int r = 0; r < ROWS; r++) {
            ints a = (ints){} + queries[r * words + i];
            for (int j = 0; j < vectors; j++)
                sum[r][j] = form == INT8 ? dot_bytes(sum[r][j], b[j], a) : dot_pairs(sum[r][j], b[j], a);
        }
    }
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < vectors; j++) {
            floats x = sum[r][j];
            if (form == INT8) x = __builtin_convertvector((ints)x, floats) * load(key_scales + j * LANES);
            store(out + r * KEYS + j * LANES, x);
            highest[r] = larger(highest[r], x);
        }
}

/* Weights 2 ** ((x - max) * scale) of LANES logits; bfloat16 queries hold their scale. */
ALWAYS_INLINE floats weights_of(floats x, float max, float scale, const int form) {
    return coarse_power(form == INT8 ? (x - max) * scale : x - max);
}

/* Logits x (ROWS, KEYS) to bfloat16 weights, none beyond count, updating each row's running max and total of rounded
   weights. decay receives the factors that correct earlier weights for the new maxima. */
ALWAYS_INLINE void softmax_step(const float *x, int count, const floats *highest, const float *scales, int32_t *weights,
                                float *max, float *total, float *decay, const int form) {
    const ints ones = (ints){} + 0x3f803f80; /* 1 and 1 */
    float change[LANES] = {};
    floats sum[ROWS];
    for (int r = 0; r < ROWS; r++) { /* the rows side by side, since each waits for its own reduction */
        const float high = _mm512_reduce_max_ps((__m512)highest[r]);
        const float next = max[r] > high ? max[r] : high;
        change[r] = (max[r] - next) * scales[r];
        max[r] = next;
        sum[r] = (floats){};
    }
    for (int r = 0; r < ROWS; r++)
        for (int n = 0; n < count; n += 2 * LANES) {
            const float *at = x + r * KEYS + n;
            ints pair = rounded(weights_of(load(at), max[r], scales[r], form),
                                weights_of(load(at + LANES), max[r], scales[r], form));
            if (count - n < 2 * LANES) pair = (ints)_mm512_maskz_mov_epi16((1u << (count - n)) - 1, (__m512i)pair);
            store_words(weights + (r * KEYS + n) / 2, pair);
            sum[r] = dot_pairs(sum[r], pair, ones);
        }
    store(decay, coarse_power(load(change)));
    for (int r = 0; r < ROWS; r++) total[r] = total[r] * decay[r] + _mm512_reduce_add_ps((__m512)sum[r]);
}

/* out (ROWS, width) = out * decay + weights (ROWS, KEYS) times values (count, width), for some columns. */
ALWAYS_INLINE void values_tile(const int32_t *weights, const int32_t *values, int count, const float *decay,
                               float *out, int width, const int vectors) {
    floats sum[ROWS][VECTORS];
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < vectors; j++) sum[r][j] = load(out + r * width + j * LANES) * decay[r];
    for (int n = 0; n < (count + 1) / 2; n++) {
        ints b[VECTORS];
        for (int j = 0; j < vectors; j++) b[j] = load_words(values + n * width + j * LANES);
        for (int r = 0; r < ROWS; r++) {
            ints a = (ints){} + weights[r * KEYS / 2 + n];
            for (int j = 0; j < vectors; j++) sum[r][j] = dot_pairs(sum[r][j], b[j], a);
        }
    }
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < vectors; j++) store(out + r * width + j * LANES, sum[r][j]);
}

static void values_columns(const int32_t *weights, const int32_t *values, int count, const float *decay, float *out,
                           int vectors) {
    const int width = vectors * LANES;
    int c = 0;
    for (; c + PANEL <= width; c += PANEL) values_tile(weights, values + c, count, decay, out + c, width, VECTORS);
    switch ((width - c) / LANES) {
    case 1: values_tile(weights, values + c, count, decay, out + c, width, 1); break;
    case 2: values_tile(weights, values + c, count, decay, out + c, width, 2); break;
    case 3: values_tile(weights, values + c, count, decay, out + c, width, 3); break;
    }
}

ALWAYS_INLINE void head(rows q, rows k, rows v, int tokens, int vectors, float scale, const int form, float *out,
                        int64_t out_token, scratch s) {
    const int width = vectors * LANES, words = form == INT8 ? width / 4 : width / 2;
    pack_keys(k, tokens, vectors, form, s);
    pack_values(v, tokens, width, s.values);
    for (int first = 0; first < tokens; first += BLOCK) {
        const int count = tokens - first < BLOCK ? tokens - first : BLOCK;
        float max[BLOCK], total[BLOCK], scales[BLOCK];
        int32_t start[BLOCK];
        const rows queries = {q.at + first * q.token, q.token};
        pack_queries(queries, count, vectors, scale * LOG2_E, form, s, scales, start);
        for (int r = 0; r < BLOCK; r++) {
            max[r] = NEVER;
            total[r] = 0.0f;
        }
        for (int i = 0; i < BLOCK * width; i++) s.result[i] = 0.0f;
        for (int key = 0; key < tokens; key += KEYS) {
            const int num_keys = tokens - key < KEYS ? tokens - key : KEYS;
            const int padded = (num_keys + LANES - 1) / LANES * LANES;
            for (int r = 0; r < count; r += ROWS) {
                float decay[LANES];
                floats highest[ROWS];
                for (int i = 0; i < ROWS; i++) highest[i] = (floats){} + NEVER;
                const int32_t *tile = s.queries + r * words;
                int n = 0;
                for (; n + PANEL <= padded; n += PANEL)
                    logits_tile(tile, start + r, words, s.keys + (int64_t)(key + n) * words, s.key_scales + key + n,
                                s.logits + n, highest, VECTORS, form);
                for (int j = 0; n + j < padded; j += LANES)
                    logits_tile(tile, start + r, words, s.keys + (int64_t)(key + n) * words + j,
                                s.key_scales + key + n + j, s.logits + n + j, highest, 1, form);
                softmax_step(s.logits, num_keys, highest, scales + r, s.weights, max + r, total + r, decay,
                             form);
                values_columns(s.weights, s.values + (int64_t)(key / 2) * width, num_keys, decay,
                               s.result + r * width, vectors);
            }
        }
        for (int r = 0; r < count; r++)
            for (int c = 0; c < width; c++) out[(first + r) * out_token + c] = s.result[r * width + c] / total[r];
    }
}

/* One head: q, k and v (tokens, width), each with its distance from token to token in floats; width is LANES times
   1 to WIDEST. integers selects the form of queries and keys. */
void densevit_mixed_attention(const float *q, int64_t q_token, const float *k, int64_t k_token, const float *v,
                              int64_t v_token, int tokens, int width, float scale, int integers, float *out,
                              int64_t out_token, float *memory) {
    const rows a = {q, q_token}, b = {k, k_token}, c = {v, v_token};
    int64_t total;
    const scratch s = divided(memory, tokens, width, &total);
    if (integers)
        head(a, b, c, tokens, width / LANES, scale, INT8, out, out_token, s);
    else
        head(a, b, c, tokens, width / LANES, scale, BFLOAT16, out, out_token, s);
}
