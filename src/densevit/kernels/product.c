/* Linear layers in float32 with what follows them, for processors with AVX-512: out = f(x w' + b) * gamma + residual.

   Columns of the weight are packed 64 at a time, just before rows are multiplied by them, so that no second copy of a
   weight is held. Tiles of 6 rows and 64 columns accumulate in 24 of the 32 vector registers. What follows the
   product is done while a tile is in the nearest cache. Every sum has the same order, whatever the number of rows.

   Compiled on first use by densevit.kernels.build: C with the vector extensions that GCC and Clang share. */

#include <math.h>
#include <stdint.h>

#define LANES 16
#define DEPTH 512         /* terms of a sum for which columns are packed at once */
#define ROWS (256 * TALL)  /* rows whose sums are kept from one DEPTH to the next */

#include "tile.h"

typedef struct {
    const float *x; /* (rows, depth) */
    int64_t x_row;  /* distance from one row to the next, in floats; so for residual and out */
    const float *weight; /* (width, depth) if transposed, else (depth, width) */
    int64_t depth, width;
    int transposed, activation;
    const float *bias, *gamma; /* (width), or null */
    const float *residual;     /* (rows, width), or null; may be out itself */
    int64_t residual_row;
    float *out; /* (rows, width) */
    int64_t out_row;
} layer;

/* Floats of scratch memory for a thread. */
int64_t densevit_product_scratch(void) { return (DEPTH + ROWS) * PANEL; }

/* 1 / (1 + e ** -x) */
static inline floats sigmoid(floats x) {
    const floats down = pick(x < 0.0f, x, -x);
    const floats near = exponential(pick(down < FLOOR, (floats){} + FLOOR, down)), e = pick(down < FLOOR, (floats){}, near);
    return pick(x < 0.0f, e, (floats){} + 1.0f) / (e + 1.0f);
}

/* x times the normal distribution's share below x; the error function follows Abramowitz and Stegun, 7.1.26. */
static inline floats gelu(floats x) {
    const floats magnitude = pick(x < 0.0f, -x, x), half = x * x * -0.5f;
    const floats near = exponential(pick(half < FLOOR, (floats){} + FLOOR, half));
    const floats bell = pick(half < FLOOR, (floats){}, near), t = 1.0f / (magnitude * 0.23164190f + 1.0f);
    floats p = t * 1.061405429f - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const floats tail = p * t * bell * 0.5f;
    return x * pick(x < 0.0f, tail, 1.0f - tail);
}

/* Numbered as _CODES of product.py. */
static inline floats activate(floats x, int activation) {
    switch (activation) {
    case 1: return gelu(x);
    case 2: return x * sigmoid(x * (x * x * 0.044715f + 1.0f) * 1.5957691f); /* 2 * sqrt(2 / pi) */
    case 3: return x * sigmoid(x * 1.702f);
    case 4: return pick(x < 0.0f, (floats){}, x);
    default: return x;
    }
}

/* Columns of a weight from column, for terms from first: (terms, PANEL), zero beyond the last column. */
static void pack(const layer *l, int64_t column, int64_t first, int64_t terms, float *panel) {
    const int64_t columns = least(PANEL, l->width - column);
    if (columns < PANEL)
        for (int64_t i = 0; i < terms * PANEL; i++) panel[i] = 0.0f;
    if (!l->transposed) {
        for (int64_t c = 0; c < terms; c++)
            for (int64_t i = 0; i < columns; i++)
                panel[c * PANEL + i] = l->weight[(first + c) * l->width + column + i];
        return;
    }
    for (int64_t c = 0; c < terms; c += LANES)
        for (int64_t i = 0; i < columns; i += LANES) {
            const float *from = l->weight + (column + i) * l->depth + first + c;
            float *to = panel + c * PANEL + i;
            const int64_t high = least(LANES, terms - c), wide = least(LANES, columns - i);
            if (high == LANES && wide == LANES)
                transpose(from, l->depth, to, PANEL);
            else
                for (int64_t e = 0; e < high; e++)
                    for (int64_t n = 0; n < wide; n++) to[e * PANEL + n] = from[n * l->depth + e];
        }
}

/* What follows the product, for sums (count, PANEL) of row and column. */
static void finish(const layer *l, float *sums, int64_t row, int64_t count, int64_t column, int64_t columns) {
    const float *gamma = l->gamma ? l->gamma + column : 0;
    for (int64_t r = 0; r < count; r++, sums += PANEL) {
        const float *residual = l->residual ? l->residual + (row + r) * l->residual_row + column : 0;
        float *out = l->out + (row + r) * l->out_row + column;
        if (l->activation)
            for (int64_t i = 0; i < columns; i += LANES) store(sums + i, activate(load(sums + i), l->activation));
        if (gamma)
            for (int64_t i = 0; i < columns; i++) sums[i] *= gamma[i];
        if (residual)
            for (int64_t i = 0; i < columns; i++) out[i] = residual[i] + sums[i];
        else
            for (int64_t i = 0; i < columns; i++) out[i] = sums[i];
    }
}

/* Rows first to last - 1 of up to PANEL columns; panel holds them already if packed. */
static void multiply(const layer *l, int64_t first, int64_t last, int64_t column, int packed, float *panel,
                     float *sums) {
    const int64_t columns = least(PANEL, l->width - column);
    float bias[PANEL] = {0};
    for (int64_t i = 0; i < columns && l->bias; i++) bias[i] = l->bias[column + i];
    for (int64_t term = 0; term == 0 || term < l->depth; term += DEPTH) {
        const int64_t terms = least(DEPTH, l->depth - term), start_row = term ? PANEL : 0;
        if (!packed) pack(l, column, term, terms, panel);
        for (int64_t r = first; r < last; r += TALL) {
            const int64_t count = least(TALL, last - r);
            float *out = sums + (l->depth > DEPTH ? (r - first) * PANEL : 0); /* else nothing is kept */
            const float *rows[TALL], *start = term ? out : bias;
            for (int64_t i = 0; i < TALL; i++) rows[i] = l->x + (r + least(i, count - 1)) * l->x_row + term;
            multiply_tile(rows, terms, panel, start, start_row, out, (columns + LANES - 1) / LANES);
            if (term + terms == l->depth) finish(l, out, r, count, column, columns);
        }
    }
}

/* Rows first to last - 1 and columns left to right - 1, left being a multiple of PANEL. */
void densevit_product(const float *x, int64_t x_row, const float *weight, int64_t depth, int64_t width, int transposed,
                      const float *bias, int activation, const float *gamma, const float *residual,
                      int64_t residual_row, float *out, int64_t out_row, int64_t first, int64_t last, int64_t left,
                      int64_t right, float *scratch) {
    const layer l = {x,    x_row, weight,   depth,        width, transposed, activation,
                     bias, gamma, residual, residual_row, out,   out_row};
    for (int64_t column = left; column < right; column += PANEL)
        for (int64_t r = first; r < last; r += ROWS)
            multiply(&l, r, least(r + ROWS, last), column, r > first && depth <= DEPTH, scratch, scratch + DEPTH * PANEL);
}

/* LayerNorm of x (rows, width) in two passes over a row: the mean, then the deviations from it. */
void densevit_layer_norm(const float *x, int64_t x_row, int64_t rows, int64_t width, const float *gain,
                         const float *shift, float eps, float *out) {
    const int64_t whole = width / LANES * LANES;
    for (int64_t r = 0; r < rows; r++, x += x_row, out += width) {
        floats sums = {}, squares = {};
        float sum = 0.0f, square = 0.0f;
        for (int64_t i = 0; i < whole; i += LANES) sums += load(x + i);
        for (int64_t i = whole; i < width; i++) sum += x[i];
        for (int i = 0; i < LANES; i++) sum += sums[i];
        const float mean = sum / width;
        for (int64_t i = 0; i < whole; i += LANES) squares += (load(x + i) - mean) * (load(x + i) - mean);
        for (int64_t i = whole; i < width; i++) square += (x[i] - mean) * (x[i] - mean);
        for (int i = 0; i < LANES; i++) square += squares[i];
        const float scale = 1.0f / sqrtf(square / width + eps);
        for (int64_t i = 0; i < width; i++) out[i] = (x[i] - mean) * scale * gain[i] + shift[i];
    }
}
