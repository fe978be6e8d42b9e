/* Linear layers in float32 with their gradients, and GELU with its gradient, for processors with AVX-512.

   Both products keep 24 of the 32 vector registers as sums. A product of rows meets panels of 64 columns, packed once. The
   gradient of a weight is a sum over rows, which needs neither factor the other way round: 6 columns of one meet 64 of the
   other, row after row, while some rows and a block of the result stay in the cache.

   Compiled by densevit.kernels.build where a C compiler is found: plain C with the vector extensions that GCC and Clang
   share. */

#include <stdint.h>
#include <string.h>

#define LANES 16
#define TALL 6 /* sums of a tile: 6 by 4 vectors */
#define WIDE 4
#define PANEL (WIDE * LANES)
#define BLOCK (16 * TALL) /* rows that meet a panel while it is near */
#define ROWS 128          /* that add to a block of a weight's gradient */
#define OUTS (32 * TALL)  /* of that block */
#define INS 384

#include "vectors.h"

#define ALWAYS __attribute__((always_inline)) static inline /* or the sums would not stay in registers */

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Floats of a packed matrix (depth, width). */
int64_t densevit_panels(int64_t depth, int64_t width) { return (width + PANEL - 1) / PANEL * PANEL * depth; }

/* A matrix (depth, width) as panels (width / PANEL, depth, PANEL); turned: it lies as (width, depth). */
void densevit_pack(const float *matrix, int64_t depth, int64_t width, int turned, float *panels) {
    for (int64_t p = 0; p < width; p += PANEL)
        for (int64_t c = 0; c < depth; c++)
            for (int64_t i = p; i < p + PANEL; i++)
                *panels++ = i < width ? matrix[turned ? i * depth + c : c * width + i] : 0.0f;
}

/* out (tall, wide vectors) = rows (tall, depth) times as much of a panel, plus bias if there is one. */
ALWAYS void product_tile(const float *rows, int64_t depth, const float *panel, const float *bias, float *out, int64_t width,
                         const int tall, const int wide) {
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

ALWAYS void product_rows(const float *rows, int64_t depth, const float *panel, const float *bias, float *out, int64_t width,
                         int64_t some, const int tall) {
    if (some == PANEL)
        product_tile(rows, depth, panel, bias, out, width, tall, WIDE);
    else
        for (int64_t j = 0; j < some; j += LANES)
            product_tile(rows, depth, panel + j, bias ? bias + j : bias, out + j, width, tall, 1);
}

/* out (count, width) = rows (count, depth) times packed panels, plus bias (width) or null; width is a multiple of LANES. */
void densevit_product(const float *rows, int64_t count, int64_t depth, const float *panels, const float *bias, float *out,
                      int64_t width) {
    for (int64_t first = 0; first < count; first += BLOCK)
        for (int64_t p = 0; p < width; p += PANEL) {
            const float *panel = panels + p * depth, *b = bias ? bias + p : bias;
            const int64_t end = least(first + BLOCK, count), some = least(PANEL, width - p);
            int64_t r = first;
            for (; r + TALL <= end; r += TALL)
                product_rows(rows + r * depth, depth, panel, b, out + r * width + p, width, some, TALL);
            for (; r < end; r++) product_rows(rows + r * depth, depth, panel, b, out + r * width + p, width, some, 1);
        }
}

/* sums (tall, wide vectors) += g' x over so many rows. */
ALWAYS void gradient_tile(const float *g, int64_t outs, const float *x, int64_t ins, int64_t rows, float *at, const int tall,
                          const int wide) {
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

ALWAYS void gradient_strip(const float *g, int64_t outs, const float *x, int64_t ins, int64_t rows, float *at, int64_t width,
                           const int tall) {
    int64_t i = 0;
    for (; i + PANEL <= width; i += PANEL) gradient_tile(g, outs, x + i, ins, rows, at + i, tall, WIDE);
    for (; i < width; i += LANES) gradient_tile(g, outs, x + i, ins, rows, at + i, tall, 1);
}

/* Of columns first to last of g (rows, outs), and of x (rows, ins), ins a multiple of LANES: the rows that are theirs of
   weight (outs, ins) = g' x, and of bias (outs), the sums of g's columns. */
void densevit_weight_gradient(const float *g, const float *x, int64_t rows, int64_t outs, int64_t ins, int64_t first,
                              int64_t last, float *weight, float *bias) {
    memset(weight + first * ins, 0, (last - first) * ins * sizeof(float));
    memset(bias + first, 0, (last - first) * sizeof(float));
    for (int64_t t = 0; t < rows; t += ROWS) {
        const int64_t some = least(ROWS, rows - t);
        for (int64_t o = first; o < last; o += OUTS) {
            const int64_t end = least(o + OUTS, last);
            for (int64_t i = 0; i < ins; i += INS) {
                const float *gs = g + t * outs, *xs = x + t * ins + i;
                const int64_t width = least(INS, ins - i);
                int64_t p = o;
                for (; p + TALL <= end; p += TALL)
                    gradient_strip(gs + p, outs, xs, ins, some, weight + p * ins + i, width, TALL);
                for (; p < end; p++) gradient_strip(gs + p, outs, xs, ins, some, weight + p * ins + i, width, 1);
            }
            for (int64_t r = t; r < t + some; r++)
                for (int64_t p = o; p < end; p++) bias[p] += g[r * outs + p];
        }
    }
}

/* Values = GELU(x), and g becomes its gradient, times the derivative at x; count is a multiple of LANES. The error function as in Abramowitz and
   Stegun, 7.1.26, to 1.5e-7, which shares its power of e with the gradient. */
void densevit_gelu_gradient(const float *x, float *g, int64_t count, float *values) {
    for (int64_t i = 0; i < count; i += LANES) {
        const floats v = load(x + i), size = pick(v < 0.0f, -v, v);
        const floats half = v * v * -0.5f, near = exponential(pick(half < FLOOR, (floats){} + FLOOR, half));
        const floats bell = pick(half < FLOOR, (floats){}, near);
        const floats t = 1.0f / (size * 0.23164190f + 1.0f); /* 0.3275911 / sqrt(2) */
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
