/* softmax(q k' / sqrt(width)) v in float32 for processors with AVX-512, without storing the logits of all pairs.

   Keys and values of a head are packed once. Then six queries at a time are combined with 256 keys: their logits
   stay in the L1 cache, are exponentiated, and weight the values; maximum and sum are carried from one block of
   keys to the next, as in Milakov and Gimelshein 2018, "Online normalizer calculation for softmax". Both products
   accumulate in 24 of the 32 vector registers.

   Compiled on first use by densevit.kernels.build: C with the vector extensions that GCC and Clang share. */

#include <math.h>
#include <stdint.h>

#define LANES 16
#define ROWS 6              /* queries of a tile */
#define VECTORS 4           /* vectors of a panel: 64 keys of a tile, or the widest head */
#define PANEL (VECTORS * LANES)
#define KEYS 256            /* a multiple of PANEL */
#define ROOM (KEYS + 2 * PANEL) /* the last keys are combined with those before if there are few */
#define BLOCK (40 * ROWS)   /* queries packed at once */

#include "vectors.h"

static const float LOG2_E = 1.44269504f;

/* Floats of scratch memory for a head: packed keys and values, a block of queries and of results, and logits. */
int64_t densevit_attention_scratch(int64_t tokens, int64_t width) {
    return 2 * ((tokens + PANEL - 1) / PANEL * PANEL) * width + 2 * BLOCK * width + ROWS * ROOM;
}

/* Logits of ROWS queries (ROWS, width) and vectors * LANES keys, packed as (width, PANEL). */
ALWAYS_INLINE void logits_tile(const float *query, int width, const float *keys, float *out,
                               const int vectors) {
    floats sum[ROWS][VECTORS];
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < vectors; j++) sum[r][j] = (floats){};
    for (int c = 0; c < width; c++) {
        floats b[VECTORS];
        for (int j = 0; j < vectors; j++) b[j] = load(keys + c * PANEL + j * LANES);
        for (int r = 0; r < ROWS; r++)
            for (int j = 0; j < vectors; j++) sum[r][j] += query[r * width + c] * b[j];
    }
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < vectors; j++) store(out + r * ROOM + j * LANES, sum[r][j]);
}

/* out (ROWS, width) = out * decay + weights (ROWS, ROOM) times values (count, width). */
ALWAYS_INLINE void values_tile(const float *weights, const float *values, int count, const float *decay,
                               float *out, const int vectors) {
    const int width = vectors * LANES;
    floats sum[ROWS][VECTORS];
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < vectors; j++) sum[r][j] = load(out + r * width + j * LANES) * decay[r];
    for (int n = 0; n < count; n++) {
        floats b[VECTORS];
        for (int j = 0; j < vectors; j++) b[j] = load(values + n * width + j * LANES);
        for (int r = 0; r < ROWS; r++)
            for (int j = 0; j < vectors; j++) sum[r][j] += weights[r * ROOM + n] * b[j];
    }
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < vectors; j++) store(out + r * width + j * LANES, sum[r][j]);
}

/* Turn logits x (ROWS, ROOM), scaled for base 2, into weights 2 ** (x - max), updating each query's max and total.
   decay becomes the factor that corrects the weights of earlier keys for the new maximum. */
static inline void softmax_step(float *x, int count, int padded, float *max, float *total, float *decay) {
    floats change = {};
    float high[ROWS];
    for (int r = 0; r < ROWS; r++) {
        float *row = x + r * ROOM;
        for (int n = count; n < padded; n++) row[n] = NEVER;
        floats highest = load(row);
        for (int n = LANES; n < padded; n += LANES) highest = greater(highest, load(row + n));
        const float found = greatest(highest);
        high[r] = found > max[r] ? found : max[r];
        change[r] = max[r] - high[r];
    }
    const floats factors = power(change);
    for (int r = 0; r < ROWS; r++) {
        floats sum = {};
        for (int n = 0; n < padded; n += LANES) {
            const floats weights = power(load(x + r * ROOM + n) - high[r]);
            store(x + r * ROOM + n, weights);
            sum += weights;
        }
        decay[r] = factors[r];
        total[r] = total[r] * factors[r] + total_of(sum);
        max[r] = high[r];
    }
}

typedef struct {
    const float *at;
    int64_t token; /* distance from one token to the next, in floats */
} rows;

/* Keys as panels (width, PANEL), zero from the last token to the end of its vector; values as (tokens, width). */
static inline void pack(rows k, rows v, int tokens, int width, float *keys, float *values) {
    for (int n = 0; n < tokens; n += LANES) {
        float *panel = keys + (int64_t)(n / PANEL * PANEL) * width + n % PANEL;
        for (int c = 0; c < width; c += LANES)
            if (n + LANES <= tokens)
                transpose(k.at + n * k.token + c, k.token, panel + c * PANEL, PANEL);
            else
                for (int e = c; e < c + LANES; e++)
                    for (int i = 0; i < LANES; i++)
                        panel[e * PANEL + i] = n + i < tokens ? k.at[(n + i) * k.token + e] : 0.0f;
    }
    for (int n = 0; n < tokens; n++)
        for (int c = 0; c < width; c++) values[(int64_t)n * width + c] = v.at[n * v.token + c];
}

ALWAYS_INLINE void head(rows q, rows k, rows v, int tokens, const int vectors, float scale, float *out,
                        int64_t out_token, float *sums, float *scratch) {
    const int width = vectors * LANES;
    const int64_t packed = (int64_t)((tokens + PANEL - 1) / PANEL * PANEL) * width;
    float *keys = scratch, *values = keys + packed, *query = values + packed;
    float *result = query + BLOCK * width, *logits = result + BLOCK * width;
    pack(k, v, tokens, width, keys, values);
    for (int first = 0; first < tokens; first += BLOCK) {
        const int count = tokens - first < BLOCK ? tokens - first : BLOCK;
        float max[BLOCK], total[BLOCK];
        for (int r = 0; r < BLOCK; r++) {
            max[r] = NEVER;
            total[r] = 0.0f;
            for (int c = 0; c < width; c++) {
                query[r * width + c] = r < count ? q.at[(first + r) * q.token + c] * (scale * LOG2_E) : 0.0f;
                result[r * width + c] = 0.0f;
            }
        }
        for (int key = 0, num_keys; key < tokens; key += num_keys) {
            num_keys = tokens - key > ROOM ? KEYS : tokens - key;
            const int padded = (num_keys + LANES - 1) / LANES * LANES;
            for (int r = 0; r < count; r += ROWS) {
                float decay[ROWS];
                int n = 0;
                for (; n + PANEL <= padded; n += PANEL)
                    logits_tile(query + r * width, width, keys + (int64_t)(key + n) * width, logits + n, VECTORS);
                for (int j = 0; n + j < padded; j += LANES)
                    logits_tile(query + r * width, width, keys + (int64_t)(key + n) * width + j, logits + n + j, 1);
                softmax_step(logits, num_keys, padded, max + r, total + r, decay);
                values_tile(logits, values + (int64_t)key * width, num_keys, decay, result + r * width, vectors);
            }
        }
        for (int r = 0; r < count && sums; r++) sums[first + r] = max[r] + log2f(total[r]);
        for (int r = 0; r < count; r++)
            for (int c = 0; c < width; c++) out[(first + r) * out_token + c] = result[r * width + c] / total[r];
    }
}

/* One head: q, k and v (tokens, width), each with its distance from token to token in floats; width is LANES times
   1 to VECTORS. sums, unless null, receives each query's base-2 log-sum-exp, which the backward pass needs. */
void densevit_attention(const float *q, int64_t q_token, const float *k, int64_t k_token, const float *v,
                        int64_t v_token, int tokens, int width, float scale, float *out, int64_t out_token,
                        float *sums, float *scratch) {
    const rows a = {q, q_token}, b = {k, k_token}, c = {v, v_token};
    switch (width / LANES) {
    case 1: head(a, b, c, tokens, 1, scale, out, out_token, sums, scratch); break;
    case 2: head(a, b, c, tokens, 2, scale, out, out_token, sums, scratch); break;
    case 3: head(a, b, c, tokens, 3, scale, out, out_token, sums, scratch); break;
    default: head(a, b, c, tokens, 4, scale, out, out_token, sums, scratch);
    }
}
