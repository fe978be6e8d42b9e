/* softmax(q k' / sqrt(width)) v with products of fewer bits, for processors with AVX-512 VNNI and BF16.

   As attention.c, six queries at a time meet blocks of keys, and maximum and sum are carried from block to block.
   Weights and values are rounded to bfloat16, and so are queries and keys; or these are 8-bit integers, signed with a
   scale per query and unsigned with a scale per key. Before, each channel's mean over all keys is taken from them: that
   adds the same to all logits of a query, which the softmax cancels, and leaves small numbers with small steps.

   A ViT's logits are small: where the lengths of queries and keys bound them, powers of two cannot overflow, so nothing
   is subtracted from logits, and they become weights in registers. Only other rows need maxima.

   The products are inline assembly because GCC 12 moves their sums to memory and back when they are intrinsics.

   Compiled on first use by densevit.kernels.build: C with the vector extensions that GCC and Clang share, for x86. */

#include <immintrin.h>
#include <math.h>
#include <stdint.h>

#define LANES 16
#define ROWS 6            /* queries of a tile */
#define VECTORS 4         /* vectors of a panel: 64 keys of a tile of logits, 64 channels of a tile of results */
#define PANEL (VECTORS * LANES)
#define KEYS 256          /* a multiple of PANEL */
#define ROOM (KEYS + 2 * PANEL) /* the last keys are combined with those before if there are few */
#define BLOCK (40 * ROWS) /* queries packed at once */
#define WIDEST 8          /* vectors of the widest head */
#define AHEAD 8           /* tokens that are fetched early */

#include "vectors.h"

enum { INT8, BFLOAT16 }; /* the form of queries and keys */
typedef int8_t bytes __attribute__((vector_size(LANES), aligned(1), may_alias));

static const float LOG2_E = 1.44269504f, SMALLEST = 1e-30f; /* the largest value of a row, whose scale is not zero */
enum { MAGNITUDE = 0x7fffffff, INFINITE = 0x7f800000 }; /* bits of a float: all but its sign; those of infinity */
static const float CALM = 64.0f;       /* largest logit, in powers of two, from which no maximum is subtracted */
static const float CALM_VALUE = 1e10f; /* largest value then: sums stay far below the largest float */

/* sum + the products in each lane: four of u (unsigned) and s (signed), where sum holds integers whatever its type, or
   two of bfloat16. */
ALWAYS_INLINE floats dot_bytes(floats sum, ints u, ints s) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u), "v"(s));
    return sum;
}

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

/* 2 ** x for x <= 0, with a relative error of 8e-5, a twentieth of bfloat16's; NaN stays NaN. */
ALWAYS_INLINE floats coarse_power(floats x) {
    floats r = (floats)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); /* x - floor(x) */
    floats p = r * 7.80245231e-2f + 2.26067168e-1f; /* minimax on [0, 1] */
    p = p * r + 6.95833529e-1f;
    p = p * r + 9.99925220e-1f;
    return (floats)_mm512_scalef_ps((__m512)p, (__m512)x);
}

#include "mixed_packing.h"

/* Sums of the products of ROWS queries and vectors * LANES keys. */
ALWAYS_INLINE void products(const int32_t *queries, const int32_t *start, int words, const int32_t *keys,
                            floats sum[ROWS][VECTORS], const int vectors, const int form) {
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
}

/* Logits of ROWS queries and vectors * LANES keys, not scaled by the queries' scales; raises each row's highest. */
ALWAYS_INLINE void logits_tile(const int32_t *queries, const int32_t *start, int words, const int32_t *keys,
                               const float *key_scales, float *out, floats *highest, const int vectors,
                               const int form) {
    floats sum[ROWS][VECTORS];
    products(queries, start, words, keys, sum, vectors, form);
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < vectors; j++) {
            floats x = sum[r][j];
            if (form == INT8) x = __builtin_convertvector((ints)x, floats) * load(key_scales + j * LANES);
            store(out + r * ROOM + j * LANES, x);
            highest[r] = larger(highest[r], x);
        }
}

/* Weights 2 ** ((x - max) * scale) of LANES logits; bfloat16 queries hold their scale. */
ALWAYS_INLINE floats weights_of(floats x, float max, float scale, const int form) {
    return coarse_power(form == INT8 ? (x - max) * scale : x - max);
}

/* Logits x (ROWS, ROOM) to bfloat16 weights, none beyond count, updating each row's running max and total of rounded
   weights. decay receives the factors that correct earlier weights for the new maxima. */
ALWAYS_INLINE void softmax_step(const float *x, int count, const floats *highest, const float *scales, int32_t *weights,
                                float *max, float *total, float *decay, const int form) {
    const ints ones = (ints){} + 0x3f803f80; /* 1 and 1 */
    floats change = {}, sum[ROWS];
    for (int r = 0; r < ROWS; r++) { /* the rows side by side, since each waits for its own reduction */
        const float high = _mm512_reduce_max_ps((__m512)highest[r]);
        const float next = max[r] > high ? max[r] : high;
        change[r] = (max[r] - next) * scales[r];
        max[r] = next;
        sum[r] = (floats){};
    }
    for (int r = 0; r < ROWS; r++)
        for (int n = 0; n < count; n += 2 * LANES) {
            const float *at = x + r * ROOM + n;
            ints pair = rounded(weights_of(load(at), max[r], scales[r], form),
                                weights_of(load(at + LANES), max[r], scales[r], form));
            if (count - n < 2 * LANES) pair = (ints)_mm512_maskz_mov_epi16((1u << (count - n)) - 1, (__m512i)pair);
            store_words(weights + (r * ROOM + n) / 2, pair);
            sum[r] = dot_pairs(sum[r], pair, ones);
        }
    store(decay, coarse_power(change));
    for (int r = 0; r < ROWS; r++) total[r] = total[r] * decay[r] + _mm512_reduce_add_ps((__m512)sum[r]);
}

/* bfloat16 weights 2 ** x of the logits x of ROWS queries and two vectors of keys, none beyond count; adds them up. */
ALWAYS_INLINE void calm_tile(const int32_t *queries, const int32_t *start, const float *scales, int words,
                             const int32_t *keys, const float *key_scales, int count, int32_t *weights, floats *total,
                             const int form) {
    const ints ones = (ints){} + 0x3f803f80; /* 1 and 1 */
    floats sum[ROWS][VECTORS];
    products(queries, start, words, keys, sum, 2, form);
    for (int r = 0; r < ROWS; r++) {
        for (int j = 0; j < 2 && form == INT8; j++)
            sum[r][j] = __builtin_convertvector((ints)sum[r][j], floats) * (load(key_scales + j * LANES) * scales[r]);
        ints pair = rounded(coarse_power(sum[r][0]), coarse_power(sum[r][1]));
        if (count < 2 * LANES) pair = (ints)_mm512_maskz_mov_epi16((1u << count) - 1, (__m512i)pair);
        store_words(weights + r * ROOM / 2, pair);
        total[r] = dot_pairs(total[r], pair, ones);
    }
}

/* Weights of ROWS queries and count keys whose logits are small, adding them up in totals (ROWS, LANES). */
ALWAYS_INLINE void calm_step(const int32_t *queries, const int32_t *start, const float *scales, int words,
                             const int32_t *keys, const float *key_scales, int count, int32_t *weights, float *totals,
                             const int form) {
    floats total[ROWS];
    for (int r = 0; r < ROWS; r++) total[r] = load(totals + r * LANES);
    int n = 0;
    for (; n + 2 * LANES <= count; n += 2 * LANES)
        calm_tile(queries, start, scales, words, keys + n / PANEL * PANEL * words + n % PANEL, key_scales + n,
                  2 * LANES, weights + n / 2, total, form);
    if (n < count)
        calm_tile(queries, start, scales, words, keys + n / PANEL * PANEL * words + n % PANEL, key_scales + n,
                  count - n, weights + n / 2, total, form);
    for (int r = 0; r < ROWS; r++) store(totals + r * LANES, total[r]);
}

/* out (ROWS, width) = out * decay + weights (ROWS, ROOM) times values (count, width), for some columns. */
ALWAYS_INLINE void values_tile(const int32_t *weights, const int32_t *values, int count, const float *decay,
                               float *out, int width, const int vectors) {
    floats sum[ROWS][VECTORS];
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < vectors; j++) sum[r][j] = load(out + r * width + j * LANES) * decay[r];
    for (int n = 0; n < (count + 1) / 2; n++) {
        ints b[VECTORS];
        for (int j = 0; j < vectors; j++) b[j] = load_words(values + n * width + j * LANES);
        for (int r = 0; r < ROWS; r++) {
            ints a = (ints){} + weights[r * ROOM / 2 + n];
            for (int j = 0; j < vectors; j++) sum[r][j] = dot_pairs(sum[r][j], b[j], a);
        }
    }
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < vectors; j++) store(out + r * width + j * LANES, sum[r][j]);
}

static void values_columns(const int32_t *weights, const int32_t *values, int count, const float *decay, float *out,
                           int width) {
    int c = 0;
    for (; c + PANEL <= width; c += PANEL) values_tile(weights, values + c, count, decay, out + c, width, VECTORS);
    const int left = (width - c) / LANES;
    if (left == 1) values_tile(weights, values + c, count, decay, out + c, width, 1);
    if (left == 2) values_tile(weights, values + c, count, decay, out + c, width, 2);
    if (left == 3) values_tile(weights, values + c, count, decay, out + c, width, 3);
}

/* Whether no logit of ROWS queries can be large, from squared lengths of queries and of the longest key. */
ALWAYS_INLINE int calm(const float *lengths, float longest) {
    int all = 1;
    for (int r = 0; r < ROWS; r++) all &= lengths[r] * longest <= CALM * CALM;
    return all;
}

/* Weights of ROWS queries and count keys, subtracting maxima. Returns the factors that correct earlier results. */
ALWAYS_INLINE floats step(const int32_t *queries, const int32_t *start, const float *scales, int words,
                          const int32_t *keys, const float *key_scales, int count, float *logits, int32_t *weights,
                          float *max, float *total, const int form) {
    floats highest[ROWS], decay;
    for (int i = 0; i < ROWS; i++) highest[i] = (floats){} + NEVER;
    int n = 0;
    for (; n + PANEL <= count; n += PANEL)
        logits_tile(queries, start, words, keys + n * words, key_scales + n, logits + n, highest, VECTORS, form);
    for (int j = 0; n + j < count; j += LANES)
        logits_tile(queries, start, words, keys + n * words + j, key_scales + n + j, logits + n + j, highest, 1, form);
    softmax_step(logits, count, highest, scales, weights, max, total, (float *)&decay, form);
    return decay;
}

ALWAYS_INLINE void head(rows q, rows k, rows v, int tokens, int width, float scale, const int form, float *out,
                        int64_t out_token, float *scratch) {
    const int words = form == INT8 ? width / 4 : width / 2;
    int32_t *keys = (int32_t *)scratch, *values = keys + whole_panels(tokens) * width / 2;
    int32_t *queries = values + whole_panels(tokens) * width / 2, *weights = queries + BLOCK * width / 2;
    float *key_scales = (float *)(weights + ROWS * ROOM / 2), *logits = key_scales + whole_panels(tokens);
    float *result = logits + ROWS * ROOM, *totals = result + BLOCK * width;
    const float longest = pack_keys(k, tokens, width / LANES, form, keys, key_scales);
    const int small = pack_values(v, tokens, width, values);
    for (int first = 0; first < tokens; first += BLOCK) {
        const int count = tokens - first < BLOCK ? tokens - first : BLOCK;
        const rows some = {q.at + first * q.token, q.token};
        float scales[BLOCK], max[BLOCK], total[BLOCK] = {}, lengths[BLOCK];
        int32_t start[BLOCK];
        pack_queries(some, count, width / LANES, scale * LOG2_E, form, queries, scales, start, lengths);
        for (int r = 0; r < BLOCK; r++) max[r] = NEVER;
        for (int i = 0; i < BLOCK * LANES; i++) totals[i] = 0.0f;
        for (int i = 0; i < BLOCK * width; i++) result[i] = 0.0f;
        for (int key = 0, num_keys; key < tokens; key += num_keys) {
            num_keys = tokens - key <= ROOM ? tokens - key : KEYS;
            const int32_t *block = keys + (int64_t)key * words;
            for (int r = 0; r < count; r += ROWS) {
                floats decay = (floats){} + 1.0f;
                const int32_t *tile = queries + r * words;
                if (small && calm(lengths + r, longest))
                    calm_step(tile, start + r, scales + r, words, block, key_scales + key, num_keys, weights,
                              totals + r * LANES, form);
                else
                    decay = step(tile, start + r, scales + r, words, block, key_scales + key, num_keys, logits, weights,
                                 max + r, total + r, form);
                values_columns(weights, values + (int64_t)key / 2 * width, num_keys, (float *)&decay,
                               result + r * width, width);
            }
        }
        for (int r = 0; r < count; r++) { /* one of the two totals is zero */
            const float share = 1.0f / (total[r] + _mm512_reduce_add_ps((__m512)load(totals + r * LANES)));
            for (int c = 0; c < width; c += LANES)
                store(out + (first + r) * out_token + c, load(result + r * width + c) * share);
        }
    }
}

/* Floats of scratch memory for a head, as head() divides it. */
int64_t densevit_mixed_attention_scratch(int64_t tokens, int64_t width) {
    return whole_panels(tokens) * (width + 1) + BLOCK * (width / 2 * 3 + LANES) + ROWS * ROOM / 2 * 3;
}

/* One head: q, k and v (tokens, width), each with its distance from token to token in floats; width is LANES times
   1 to WIDEST. integers selects the form of queries and keys. */
void densevit_mixed_attention(const float *q, int64_t q_token, const float *k, int64_t k_token, const float *v,
                              int64_t v_token, int tokens, int width, float scale, int integers, float *out,
                              int64_t out_token, float *scratch) {
    const rows a = {q, q_token}, b = {k, k_token}, c = {v, v_token};
    if (width == 64 && integers) /* nearly always: with a constant width, rows stay in registers while they are packed */
        head(a, b, c, tokens, 64, scale, INT8, out, out_token, scratch);
    else if (width == 64)
        head(a, b, c, tokens, 64, scale, BFLOAT16, out, out_token, scratch);
    else if (integers)
        head(a, b, c, tokens, width, scale, INT8, out, out_token, scratch);
    else
        head(a, b, c, tokens, width, scale, BFLOAT16, out, out_token, scratch);
}
