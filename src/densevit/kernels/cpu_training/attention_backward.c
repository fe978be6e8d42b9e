/* Gradients of softmax(q k' / sqrt(width)) v in float32 for processors with AVX-512, without storing all weights.

   Keys and values of a head are packed once. 96 queries at a time are combined with 64 keys: their weights are
   recomputed from the forward pass's log-sum-exps, as in Dao et al. 2022, "FlashAttention", and used by four
   products while they are in the cache. All five products accumulate in 24 of the 32 vector registers.

   Compiled on first use by densevit.kernels.build: C with the vector extensions that GCC and Clang share. */

#include <stdint.h>
#include <string.h>

#define LANES 16
#define ROWS 6 /* rows of a tile */
#define VECTORS 4
#define PANEL (VECTORS * LANES) /* keys */
#define QUERIES (16 * ROWS)
#define STRIDE (PANEL + ROWS) /* floats from one query's weights to the next; those beyond the panel are 0 */

#include "vectors.h"

static const float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;

static int64_t padded(int64_t tokens) { return (tokens + PANEL - 1) / PANEL * PANEL; }

/* Floats of scratch memory for a head. */
int64_t densevit_attention_backward_scratch(int64_t tokens, int64_t width) {
    return (5 * padded(tokens) + 2 * ROWS + 3 * QUERIES) * width + 2 * QUERIES * STRIDE;
}

/* sums = a b, for a (ROWS, width) and the first vectors of a panel b (width, PANEL). */
static inline void products(const float *a, const float *b, int width, floats sums[ROWS][VECTORS],
                            const int vectors) {
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < vectors; j++) sums[r][j] = (floats){};
    for (int c = 0; c < width; c++) {
        floats x[VECTORS];
        for (int j = 0; j < vectors; j++) x[j] = load(b + c * PANEL + j * LANES);
        for (int r = 0; r < ROWS; r++)
            for (int j = 0; j < vectors; j++) sums[r][j] += a[r * width + c] * x[j];
    }
}

/* out (ROWS, width) += a b, for a with strides (row, next) and b (count, width). */
static inline void add_products(const float *a, int row, int next, const float *b, int count, float *out,
                                const int vectors) {
    const int width = vectors * LANES;
    floats sums[ROWS][VECTORS];
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < vectors; j++) sums[r][j] = load(out + r * width + j * LANES);
    for (int n = 0; n < count; n++) {
        floats x[VECTORS];
        for (int j = 0; j < vectors; j++) x[j] = load(b + n * width + j * LANES);
        for (int r = 0; r < ROWS; r++)
            for (int j = 0; j < vectors; j++) sums[r][j] += a[r * row + n * next] * x[j];
    }
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < vectors; j++) store(out + r * width + j * LANES, sums[r][j]);
}

/* Attention weights of ROWS queries and vectors * LANES keys, and the gradients (slopes) of their logits. */
static inline void weights_tile(const float *query, const float *g, const float *keys, const float *values,
                                int width, const float *sum, const float *delta, float *weights,
                                float *slopes, const int vectors) {
    floats x[ROWS][VECTORS];
    products(query, keys, width, x, vectors);
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < vectors; j++) store(weights + r * STRIDE + j * LANES, power(x[r][j] - sum[r]));
    products(g, values, width, x, vectors);
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < vectors; j++)
            store(slopes + r * STRIDE + j * LANES, load(weights + r * STRIDE + j * LANES) * (x[r][j] - delta[r]));
}

typedef struct {
    const float *at;
    int64_t token; /* distance from one token to the next, in floats */
} rows;

/* x as panels (width, PANEL), zero beyond the last token. */
static void pack(rows x, int tokens, int width, float *panels) {
    for (int n = 0; n < tokens; n += PANEL)
        for (int c = 0; c < width; c += LANES)
            for (int i = 0; i < PANEL; i++)
                for (int e = c; e < c + LANES; e++)
                    panels[(int64_t)n * width + e * PANEL + i] = n + i < tokens ? x.at[(n + i) * x.token + e] : 0.0f;
}

static void copy(rows x, int first, int count, int room, int width, float factor, float *out) {
    for (int r = 0; r < room; r++)
        for (int c = 0; c < width; c++)
            out[r * width + c] = r < count ? x.at[(first + r) * x.token + c] * factor : 0.0f;
}

static void write(const float *x, int count, int width, float factor, float *out, int64_t token) {
    for (int n = 0; n < count; n++)
        for (int c = 0; c < width; c++) out[n * token + c] = x[(int64_t)n * width + c] * factor;
}

static inline void head(rows q, rows k, rows v, rows out, rows g, const float *sums, int tokens,
                        const int vectors, float scale, float *dq, float *dk, float *dv, int64_t token,
                        float *scratch) {
    const int width = vectors * LANES;
    const int64_t size = padded(tokens) * width, room = size + ROWS * width;
    float *keys = scratch, *values = keys + size, *key_rows = values + size, *key_sums = key_rows + size;
    float *value_sums = key_sums + room, *query = value_sums + room, *back = query + QUERIES * width;
    float *query_sums = back + QUERIES * width, *weights = query_sums + QUERIES * width;
    float *slopes = weights + QUERIES * STRIDE;
    pack(k, tokens, width, keys);
    pack(v, tokens, width, values);
    copy(k, 0, tokens, padded(tokens), width, 1.0f, key_rows);
    memset(key_sums, 0, 2 * room * sizeof(float));
    memset(weights, 0, 2 * QUERIES * STRIDE * sizeof(float));
    for (int first = 0; first < tokens; first += QUERIES) {
        const int count = tokens - first < QUERIES ? tokens - first : QUERIES;
        const int filled = (count + ROWS - 1) / ROWS * ROWS;
        float sum[QUERIES], delta[QUERIES];
        copy(q, first, count, filled, width, scale * LOG2_E, query);
        copy(g, first, count, filled, width, 1.0f, back);
        memset(query_sums, 0, filled * width * sizeof(float));
        for (int r = 0; r < filled; r++) {
            sum[r] = r < count ? sums[first + r] : 3.0e38f; /* weight 0 beyond the last token */
            floats both = {};
            for (int c = 0; c < width && r < count; c += LANES)
                both += load(back + r * width + c) * load(out.at + (first + r) * out.token + c);
            delta[r] = 0.0f; /* inner product of a result and its gradient: what softmax's derivative subtracts */
            for (int i = 0; i < LANES; i++) delta[r] += both[i];
        }
        for (int key = 0; key < tokens; key += PANEL) {
            const int num_keys = tokens - key < PANEL ? tokens - key : PANEL;
            const int64_t at = (int64_t)key * width;
            for (int r = 0; r < filled; r += ROWS) {
                float *w = weights + r * STRIDE, *s = slopes + r * STRIDE;
                if (num_keys == PANEL)
                    weights_tile(query + r * width, back + r * width, keys + at, values + at, width, sum + r,
                                 delta + r, w, s, VECTORS);
                else
                    for (int j = 0; j < num_keys; j += LANES)
                        weights_tile(query + r * width, back + r * width, keys + at + j, values + at + j,
                                     width, sum + r, delta + r, w + j, s + j, 1);
                add_products(s, STRIDE, 1, key_rows + at, num_keys, query_sums + r * width, vectors);
            }
            for (int r = 0; r < num_keys; r += ROWS) {
                add_products(slopes + r, 1, STRIDE, query, filled, key_sums + at + r * width, vectors);
                add_products(weights + r, 1, STRIDE, back, filled, value_sums + at + r * width, vectors);
            }
        }
        write(query_sums, count, width, scale, dq + first * token, token);
    }
    write(key_sums, tokens, width, LN_2, dk, token);
    write(value_sums, tokens, width, 1.0f, dv, token);
}

/* One head: q, k, v, its result and the result's gradient (tokens, width), each with its distance from token to
   token in floats; sums as densevit_attention wrote them; width is LANES times 1 to VECTORS. The gradients of q, k
   and v share one distance. */
void densevit_attention_backward(const float *q, int64_t q_token, const float *k, int64_t k_token, const float *v,
                                 int64_t v_token, const float *out, int64_t out_token, const float *g, int64_t g_token,
                                 const float *sums, int tokens, int width, float scale, float *dq, float *dk, float *dv,
                                 int64_t token, float *scratch) {
    const rows a = {q, q_token}, b = {k, k_token}, c = {v, v_token}, o = {out, out_token}, d = {g, g_token};
    switch (width / LANES) {
    case 1: head(a, b, c, o, d, sums, tokens, 1, scale, dq, dk, dv, token, scratch); break;
    case 2: head(a, b, c, o, d, sums, tokens, 2, scale, dq, dk, dv, token, scratch); break;
    case 3: head(a, b, c, o, d, sums, tokens, 3, scale, dq, dk, dv, token, scratch); break;
    default: head(a, b, c, o, d, sums, tokens, 4, scale, dq, dk, dv, token, scratch);
    }
}
