/* 3x3 convolutions of float32 maps by minimal filtering, for processors with AVX-512; see convolution.py, which has
   the same in torch, for the source and the points.

   A block of tiles is evaluated at all points; then, for 64 outputs at a time, its products at every point stay in
   the second cache until they are interpolated. What precedes and follows the convolution (ReLU, bias, a sum) is
   done on the way.

   Compiled on first use by densevit.kernels.build: C with the vector extensions that GCC and Clang share. */

#include <stdint.h>
#include <string.h>

#define LANES 16
#define SIDE 4             /* of an output tile */
#define REACH 6            /* side of the inputs that it depends on */
#define POINTS (REACH * REACH)
#define TILES (8 * 6)      /* a block, a multiple of TALL */
#define TERMS 256          /* channels summed at once, which keeps rounding small */

#include "tile.h"

static const float NEAR = 0.70710678f, FAR = 1.41421356f;

typedef struct {
    const float *x; /* (height, width, channels), channels last in memory */
    int64_t height, width, channels;
    int64_t top; /* row of x that the first row of results reads first; rows and columns outside x are zero */
    int relu_first, relu;
    const float *panels; /* (POINTS, panels of outputs, channels, PANEL) */
    int64_t outputs;
    const float *bias, *residual; /* (outputs); as out; or null */
    float *out;                   /* (out_height, out_width, outputs) */
    int64_t out_height, out_width;
} filter;

static inline int64_t padded(int64_t channels) { return (channels + LANES - 1) / LANES * LANES; }

/* Floats of scratch memory for a thread: values at the points, products, and zeros. */
int64_t densevit_filter_scratch(int64_t channels) {
    return POINTS * TILES * (padded(channels) + PANEL) + padded(channels);
}

/* Size in floats of the weights at all points. */
int64_t densevit_filter_panels(int64_t channels, int64_t outputs) {
    return POINTS * channels * ((outputs + PANEL - 1) / PANEL * PANEL);
}

/* Weights (3, 3, channels, outputs) evaluated by points (REACH, 3) -> panels. */
void densevit_filter_evaluate(const float *weight, int64_t channels, int64_t outputs, const float *points,
                              float *panels) {
    const int64_t num_panels = (outputs + PANEL - 1) / PANEL, size = channels * PANEL;
    for (int64_t p = 0; p < num_panels; p++)
        for (int64_t c = 0; c < channels; c++)
            for (int64_t i = 0; i < PANEL; i += LANES) {
                const int64_t first = p * PANEL + i, count = least(LANES, outputs - first);
                floats w[3][3], rows[REACH][3];
                for (int k = 0; k < 9; k++) {
                    const float *from = weight + (k * channels + c) * outputs + first;
                    w[k / 3][k % 3] = (floats){};
                    if (count == LANES) w[k / 3][k % 3] = load(from);
                    else if (count > 0) memcpy(&w[k / 3][k % 3], from, count * sizeof(float));
                }
                for (int r = 0; r < REACH; r++)
                    for (int k = 0; k < 3; k++)
                        rows[r][k] = w[0][k] * points[r * 3] + w[1][k] * points[r * 3 + 1] + w[2][k] * points[r * 3 + 2];
                for (int k = 0; k < POINTS; k++) {
                    const floats *row = rows[k / REACH];
                    const float *at = points + k % REACH * 3;
                    store(panels + (k * num_panels + p) * size + c * PANEL + i,
                          row[0] * at[0] + row[1] * at[1] + row[2] * at[2]);
                }
            }
}

/* Six adjacent inputs, a stride of vectors apart -> their factors at six points. */
ALWAYS_INLINE void evaluate(const floats *x, floats *out, const int stride) {
    const floats a = x[4 * stride] - x[2 * stride] * 2.0f, b = x[3 * stride] - x[stride] * 2.0f;
    const floats c = x[4 * stride] - x[2 * stride] * 0.5f, d = x[3 * stride] - x[stride] * 0.5f;
    const floats first = x[4 * stride] - x[2 * stride] * 2.5f + x[0];
    const floats last = x[5 * stride] - x[3 * stride] * 2.5f + x[stride];
    out[0] = first; /* out may be x */
    out[stride] = a + b * NEAR;
    out[2 * stride] = a - b * NEAR;
    out[3 * stride] = c + d * FAR;
    out[4 * stride] = c - d * FAR;
    out[5 * stride] = last;
}

/* Products at six points -> four adjacent outputs. */
ALWAYS_INLINE void interpolate(const floats *x, const int stride, floats *out, const int out_stride) {
    const floats near = x[stride] + x[2 * stride], near_odd = x[stride] - x[2 * stride];
    const floats far = x[3 * stride] + x[4 * stride], far_odd = x[3 * stride] - x[4 * stride];
    out[0] = x[0] + near + far;
    out[out_stride] = (near_odd + far_odd * 2.0f) * NEAR;
    out[2 * out_stride] = (far + near * 0.25f) * 2.0f;
    out[3 * out_stride] = x[5 * stride] + (far_odd + near_odd * 0.125f) * (2.0f * FAR);
}

/* The inputs of a tile at all points: values (POINTS, TILES, padded channels). */
static void evaluate_tile(const filter *f, int64_t row, int64_t column, const float *zeros, float *values) {
    const float *at[POINTS];
    for (int k = 0; k < POINTS; k++) {
        const int64_t y = row * SIDE + f->top + k / REACH, x = column * SIDE - 1 + k % REACH;
        const int inside = y >= 0 && y < f->height && x >= 0 && x < f->width;
        at[k] = inside ? f->x + (y * f->width + x) * f->channels : zeros;
    }
    for (int64_t c = 0; c < f->channels; c += LANES) {
        const int64_t count = least(LANES, f->channels - c);
        floats x[POINTS];
        for (int k = 0; k < POINTS; k++) {
            x[k] = (floats){};
            if (count == LANES) x[k] = load(at[k] + c);
            else memcpy(x + k, at[k] + c, count * sizeof(float));
            if (f->relu_first) x[k] = pick(x[k] < 0.0f, (floats){}, x[k]);
        }
        for (int i = 0; i < REACH; i++) evaluate(x + i, x + i, REACH);
        for (int i = 0; i < REACH; i++) evaluate(x + i * REACH, x + i * REACH, 1);
        for (int k = 0; k < POINTS; k++) store(values + k * TILES * padded(f->channels) + c, x[k]);
    }
}

/* Products of a tile at all points (POINTS, TILES, PANEL) -> results in up to PANEL outputs. */
static void interpolate_tile(const filter *f, int64_t row, int64_t column, int64_t output, const float *products) {
    for (int64_t j = output; j < least(output + PANEL, f->outputs); j += LANES) {
        const int64_t count = least(LANES, f->outputs - j);
        floats x[POINTS], rows[SIDE * REACH], y[SIDE * SIDE], bias = {};
        for (int k = 0; k < POINTS; k++) x[k] = load(products + k * TILES * PANEL + j - output);
        for (int i = 0; i < REACH; i++) interpolate(x + i, REACH, rows + i, REACH);
        for (int i = 0; i < SIDE; i++) interpolate(rows + i * REACH, 1, y + i * SIDE, 1);
        if (f->bias) memcpy(&bias, f->bias + j, count * sizeof(float));
        for (int k = 0; k < SIDE * SIDE; k++) {
            const int64_t h = row * SIDE + k / SIDE, w = column * SIDE + k % SIDE;
            if (h >= f->out_height || w >= f->out_width) continue;
            const int64_t at = (h * f->out_width + w) * f->outputs + j;
            floats v = y[k] + bias, sum = {};
            if (f->residual) {
                if (count == LANES) sum = load(f->residual + at);
                else memcpy(&sum, f->residual + at, count * sizeof(float));
                v += sum;
            }
            if (f->relu) v = pick(v < 0.0f, (floats){}, v);
            if (count == LANES) store(f->out + at, v);
            else memcpy(f->out + at, &v, count * sizeof(float));
        }
    }
}

/* Tiles first to last - 1 of a map, counted row by row; the arguments are those of the struct above. */
void densevit_filter(const float *x, int64_t height, int64_t width, int64_t channels, int64_t top, int relu_first,
                     int relu, const float *panels, int64_t outputs, const float *bias, const float *residual,
                     float *out, int64_t out_height, int64_t out_width, int64_t first, int64_t last, float *scratch) {
    const filter f = {x,       height, width,    channels, top,        relu_first, relu, panels,
                      outputs, bias,   residual, out,      out_height, out_width};
    const int64_t across = (out_width + SIDE - 1) / SIDE, stride = padded(channels);
    const int64_t num_panels = (outputs + PANEL - 1) / PANEL;
    float *values = scratch, *products = values + POINTS * TILES * stride, *zeros = products + POINTS * TILES * PANEL;
    const float none[PANEL] = {0};
    memset(zeros, 0, stride * sizeof(float));
    for (int64_t block = first; block < last; block += TILES) {
        const int64_t count = least(TILES, last - block);
        for (int64_t t = 0; t < count; t++)
            evaluate_tile(&f, (block + t) / across, (block + t) % across, zeros, values + t * stride);
        for (int64_t p = 0; p < num_panels; p++) {
            const int vectors = (least(PANEL, outputs - p * PANEL) + LANES - 1) / LANES;
            for (int64_t k = 0; k < POINTS; k++)
                for (int64_t term = 0; term < channels; term += TERMS)
                    for (int64_t t = 0; t < count; t += TALL) {
                        const float *rows[TALL], *panel = panels + (k * num_panels + p) * channels * PANEL;
                        float *to = products + (k * TILES + t) * PANEL;
                        for (int64_t i = 0; i < TALL; i++)
                            rows[i] = values + (k * TILES + least(t + i, count - 1)) * stride + term;
                        multiply_tile(rows, least(TERMS, channels - term), panel + term * PANEL, term ? to : none,
                                      term ? PANEL : 0, to, vectors);
                    }
            for (int64_t t = 0; t < count; t++)
                interpolate_tile(&f, (block + t) / across, (block + t) % across, p * PANEL, products + t * PANEL);
        }
    }
}
