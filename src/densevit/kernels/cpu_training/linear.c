/* Linear layers and GELU in float32 with their gradients, for processors with AVX-512.

   Both products accumulate in 24 of the 32 vector registers. A product multiplies rows by panels of 64 columns,
   packed once. The gradient of a weight is a sum over rows, which needs neither factor transposed: 6 columns of
   one are multiplied by 64 of the other, row after row, while some rows and a block of the result stay in the
   cache.

   Compiled on first use by densevit.kernels.build: C with the vector extensions that GCC and Clang share. */

#include <stdint.h>
#include <string.h>

#define LANES 16
#define TALL 6 /* a tile has 6 rows of 4 vectors */
#define WIDE 4
#define PANEL (WIDE * LANES)
#define BLOCK (16 * TALL) /* rows multiplied by a panel while it is in the cache */
#define ROWS 128          /* rows added at once to a block (OUTS, INS) of a weight's gradient */
#define OUTS (32 * TALL)
#define INS 384

#include "vectors.h"

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Size in floats of a packed matrix (depth, width). */
int64_t densevit_panels(int64_t depth, int64_t width) { return (width + PANEL - 1) / PANEL * PANEL * depth; }

/* Pack a matrix (depth, width), stored as (width, depth) if transposed, into panels (width / PANEL, depth, PANEL). */
void densevit_pack(const float *matrix, int64_t depth, int64_t width, int transposed, float *panels) {
    for (int64_t p = 0; p < width; p += PANEL)
        for (int64_t c = 0; c < depth; c++)
            for (int64_t i = p; i < p + PANEL; i++)
                *panels++ = i < width ? matrix[transposed ? i * depth + c : c * width + i] : 0.0f;
}

/* out (tall, wide vectors) = rows (tall, depth) times the first wide vectors of a panel, plus bias if not null. */
ALWAYS_INLINE void product_tile(const float *rows, int64_t depth, const float *panel, const float *bias,
                                float *out, int64_t width, const int tall, const int wide) {
    floats sums[TALL][WIDE];
    for (int r = 0; r < tall; r++)
        for (int j = 0; j < wide; j++) sums[r][j] = bias ? load(bias + j * LANES) : (floats){};
    for (int64_t c = 0; c < depth; c++) {
        floats x[WIDE];
        for (int j = 0; j < wide; j++) x[j] = load(panel + c * PANEL + j * LANES);
        for (int r = 0; r < tall; r++)
            for (int j = 0; j < wide; j++) sums[r][j] += rows[r * depth + c] * x[j];
    }
    for (int r = 0; r < tall; r++)
        for (int j = 0; j < wide; j++) store(out + r * width + j * LANES, sums[r][j]);
}

ALWAYS_INLINE void product_rows(const float *rows, int64_t depth, const float *panel, const float *bias,
                                float *out, int64_t width, int64_t columns, const int tall) {
    if (columns == PANEL)
        product_tile(rows, depth, panel, bias, out, width, tall, WIDE);
    else
        for (int64_t j = 0; j < columns; j += LANES)
            product_tile(rows, depth, panel + j, bias ? bias + j : bias, out + j, width, tall, 1);
}

/* out (count, width) = rows (count, depth) times packed panels, plus bias (width) or null; width is a multiple of
   LANES. */
void densevit_product(const float *rows, int64_t count, int64_t depth, const float *panels, const float *bias,
                      float *out, int64_t width) {
    for (int64_t first = 0; first < count; first += BLOCK)
        for (int64_t p = 0; p < width; p += PANEL) {
            const float *panel = panels + p * depth, *b = bias ? bias + p : bias;
            const int64_t end = least(first + BLOCK, count), columns = least(PANEL, width - p);
            int64_t r = first;
            for (; r + TALL <= end; r += TALL)
                product_rows(rows + r * depth, depth, panel, b, out + r * width + p, width, columns, TALL);
            for (; r < end; r++)
                product_rows(rows + r * depth, depth, panel, b, out + r * width + p, width, columns, 1);
        }
}

/* at (tall, wide vectors) += g' x over the given rows. */
ALWAYS_INLINE void gradient_tile(const float *g, int64_t outs, const float *x, int64_t ins, int64_t rows,
                                 float *at, const int tall, const int wide) {
    floats sums[TALL][WIDE];
    for (int r = 0; r < tall; r++)
        for (int j = 0; j < wide; j++) sums[r][j] = load(at + r * ins + j * LANES);
    for (int64_t t = 0; t < rows; t++, g += outs, x += ins) {
        floats v[WIDE];
        for (int j = 0; j < wide; j++) v[j] = load(x + j * LANES);
        for (int r = 0; r < tall; r++)
            for (int j = 0; j < wide; j++) sums[r][j] += g[r] * v[j];
    }
    for (int r = 0; r < tall; r++)
        for (int j = 0; j < wide; j++) store(at + r * ins + j * LANES, sums[r][j]);
}

ALWAYS_INLINE void gradient_strip(const float *g, int64_t outs, const float *x, int64_t ins, int64_t rows,
                                  float *at, int64_t width, const int tall) {
    int64_t i = 0;
    for (; i + PANEL <= width; i += PANEL) gradient_tile(g, outs, x + i, ins, rows, at + i, tall, WIDE);
    for (; i < width; i += LANES) gradient_tile(g, outs, x + i, ins, rows, at + i, tall, 1);
}

/* Rows first to last - 1 of weight (outs, ins) = g' x, for g (rows, outs) and x (rows, ins), and of bias (outs),
   the sums of g's columns; ins is a multiple of LANES. */
void densevit_weight_gradient(const float *g, const float *x, int64_t rows, int64_t outs, int64_t ins,
                              int64_t first, int64_t last, float *weight, float *bias) {
    memset(weight + first * ins, 0, (last - first) * ins * sizeof(float));
    memset(bias + first, 0, (last - first) * sizeof(float));
    for (int64_t t = 0; t < rows; t += ROWS) {
        const int64_t num_rows = least(ROWS, rows - t);
        for (int64_t o = first; o < last; o += OUTS) {
            const int64_t end = least(o + OUTS, last);
            for (int64_t i = 0; i < ins; i += INS) {
                const float *gs = g + t * outs, *xs = x + t * ins + i;
                const int64_t width = least(INS, ins - i);
                int64_t p = o;
                for (; p + TALL <= end; p += TALL)
                    gradient_strip(gs + p, outs, xs, ins, num_rows, weight + p * ins + i, width, TALL);
                for (; p < end; p++) gradient_strip(gs + p, outs, xs, ins, num_rows, weight + p * ins + i, width, 1);
            }
            for (int64_t r = t; r < t + num_rows; r++)
                for (int64_t p = o; p < end; p++) bias[p] += g[r * outs + p];
        }
    }
}

/* values = GELU(x); g is multiplied by the derivative at x; count is a multiple of LANES. The error function
   follows Abramowitz and Stegun, 7.1.26, with an error of 1.5e-7, and shares its exponential with the derivative. */
void densevit_gelu_gradient(const float *x, float *g, int64_t count, float *values) {
    for (int64_t i = 0; i < count; i += LANES) {
        const floats v = load(x + i), magnitude = pick(v < 0.0f, -v, v);
        const floats half = v * v * -0.5f, near = exponential(pick(half < FLOOR, (floats){} + FLOOR, half));
        const floats bell = pick(half < FLOOR, (floats){}, near);
        const floats t = 1.0f / (magnitude * 0.23164190f + 1.0f); /* 0.3275911 / sqrt(2) */
        floats p = t * 1.061405429f - 1.453152027f;
        p = p * t + 1.421413741f;
        p = p * t - 0.284496736f;
        p = p * t + 0.254829592f;
        const floats tail = p * t * bell * 0.5f; /* of the normal distribution, beyond |v| */
        const floats below = pick(v < 0.0f, tail, 1.0f - tail);
        store(values + i, v * below);
        store(g + i, load(g + i) * (below + v * bell * 0.39894228f)); /* 1 / sqrt(2 pi) */
    }
}
