/* Linear layers on rows of unsigned 8-bit integers, for processors with AVX-512 VNNI.

   Each row is quantised where it is needed, after LayerNorm or an activation, with a scale and a zero point of its
   own: see rows.h. Weights are signed, with a scale for each output. Sums of integers are exact; scales, bias and a
   residual are applied to them in float32.

   Six rows are multiplied by a panel of 64 outputs at a time, with 24 sums in registers, and many rows share a panel
   while they are in the cache. The product is in assembly because GCC 12 spills the sums of its own intrinsic.

   Compiled on first use by densevit.kernels.build, for GCC and Clang. */

#include <stdint.h>

#define LANES 16
#define TALL 6 /* a tile has 6 rows of 4 vectors */
#define WIDE 4
#define PANEL (WIDE * LANES)
#define QUAD 4             /* products that a lane adds at once */
#define BLOCK (40 * TALL)  /* rows multiplied by a panel while they are in the cache */
#define BLOCK_BYTES 600000 /* of a block of longer rows, with what is between two layers: both stay in the cache */
#define LINE 64

#include "rows.h"

/* Panels (width / PANEL, depth / QUAD, PANEL, QUAD); sums of the weights, scales and bias of each output. */
typedef struct {
    int64_t depth, width;
    const int8_t *panels;
    const int32_t *sums;
    const float *scales, *bias;
} layer;

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
    float *at = out + c;
    const float *added = residual ? residual + c : residual;
    const int fits = count >= TALL && l->width - c >= PANEL;
    __m512i sums[TALL][WIDE];
    for (int i = 0; i < TALL; i++)
        for (int j = 0; j < WIDE; j++)
            sums[i][j] = _mm512_mullo_epi32(_mm512_loadu_si512(l->sums + c + j * LANES),
                                            _mm512_set1_epi32(-x.zeros[r + i]));
    const int64_t share = rounded(depth / TALL + 1, QUAD); /* at most TALL parts */
    for (int64_t row = 0, k = 0; k < depth; row++) { /* each fetches a row of the residual */
        for (int j = 0; j < WIDE && fits && added; j++) {
            __builtin_prefetch(at + row * stride + j * LANES, 1);
            __builtin_prefetch(added + row * residual_stride + j * LANES);
        }
        for (const int64_t end = least(k + share, depth); k < end; k += QUAD) {
            __m512i w[WIDE];
            for (int j = 0; j < WIDE; j++) w[j] = _mm512_loadu_si512(panel + k * PANEL + j * LANES * QUAD);
            for (int i = 0; i < TALL; i++) {
                const __m512i quad = _mm512_set1_epi32(*(const int32_t *)(u + i * x.stride + k));
                for (int j = 0; j < WIDE; j++) sums[i][j] = add_products(sums[i][j], quad, w[j]);
            }
        }
    }
    float part[TALL * PANEL];
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

/* An odd number of lines, so that the rows of a tile are in different sets of a cache. */
static int64_t byte_stride(int64_t depth) { return rounded(depth, 2 * LINE) + LINE; }

/* Rows computed at once, and the largest depth of the layers and width between them. */
static void plan(const layer *layers, int64_t num_layers, int64_t *block, int64_t *depth, int64_t *hidden) {
    *depth = *hidden = 0;
    for (int64_t i = 0; i < num_layers; i++) {
        if (layers[i].depth > *depth) *depth = layers[i].depth;
        if (i + 1 < num_layers && layers[i].width > *hidden) *hidden = layers[i].width;
    }
    *block = least(BLOCK, BLOCK_BYTES / (byte_stride(*depth) + 4 * *hidden) / TALL * TALL);
    if (*block < TALL) *block = TALL;
}

/* Bytes of scratch memory for a chain of layers. */
int64_t densevit_int8_scratch(const layer *layers, int64_t num_layers) {
    int64_t block, depth, hidden;
    plan(layers, num_layers, &block, &depth, &hidden);
    return block * (byte_stride(depth) + 8 + 4 * hidden) + 4 * rounded(depth, PANEL) + 5 * LINE;
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
    int64_t block, depth, widest;
    plan(layers, num_layers, &block, &depth, &widest);
    tokens u;
    u.scales = take(&scratch, block * sizeof(float));
    u.zeros = take(&scratch, block * sizeof(int32_t));
    float *values = take(&scratch, rounded(depth, PANEL) * sizeof(float));
    u.at = take(&scratch, block * byte_stride(depth));
    float *hidden = take(&scratch, block * widest * sizeof(float));
    for (int64_t start = 0; start < count; start += block) {
        const int64_t rows = least(block, count - start);
        const float *from = x + start * x_stride, *added = residual ? residual + start * residual_stride : residual;
        int64_t from_stride = x_stride;
        for (int64_t i = 0; i < num_layers; i++) {
            const layer *l = layers + i;
            const int last = i + 1 == num_layers;
            float *to = last ? out + start * out_stride : hidden;
            const int64_t stride = last ? out_stride : l->width;
            u.stride = byte_stride(l->depth);
            for (int64_t r = 0; r < rows; r++)
                quantise(from + r * from_stride, l->depth, preparations[i], values, u, r);
            for (int64_t r = rows; r < rounded(rows, TALL); r++) u.zeros[r] = 0; /* of rows that only fill a tile */
            for (int64_t c = 0; c < l->width; c += PANEL)
                for (int64_t r = 0; r < rows; r += TALL)
                    tile(u, r, rows - r, l, c, last && added ? added + r * residual_stride : 0, residual_stride,
                         to + r * stride, stride);
            from = hidden, from_stride = stride;
        }
    }
}
