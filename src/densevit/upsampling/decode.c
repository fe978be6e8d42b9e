/* Bilinear upsampling fused with the arg max over the classes, and optionally with score and entropy of the
   softmax.

   For every new row, the two old ones are interpolated into a line of w pixels x classes, which stays in the
   cache; every pixel interpolates two entries of the line, a vector of classes at a time. Classes are padded to
   whole vectors with a value that never wins. Nothing as large as the upsampled logits exists.

   Compiled on first use by densevit.kernels.build: C with the vector extensions that GCC and Clang share. */

#include <math.h>
#include <stdint.h>

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif

#include "vectors.h"

int densevit_lanes(void) { return LANES; }

static inline floats blend(const float *a, const float *b, float weight) {
    const floats first = load(a);
    return first + (load(b) - first) * weight;
}

/* Interpolate one row between upper and lower (by strides) into line (w, padded). */
static void blend_rows(const float *upper, const float *lower, float weight, int w, int classes, int padded,
                       int64_t class_stride, int64_t x_stride, float *line) {
    if (class_stride == 1) {
        for (int x = 0; x < w; x++) {
            const float *a = upper + x * x_stride, *b = lower + x * x_stride;
            float *out = line + (int64_t)x * padded;
            for (int k = 0; k < classes; k++) out[k] = a[k] + (b[k] - a[k]) * weight;
        }
        return;
    }
    for (int k = 0; k < classes; k++) {
        const float *a = upper + k * class_stride, *b = lower + k * class_stride;
        float *out = line + k;
        for (int x = 0; x < w; x++) {
            const float first = a[x * x_stride], second = b[x * x_stride];
            out[(int64_t)x * padded] = first + (second - first) * weight;
        }
    }
}

/* Rows first .. last - 1 of the outputs, each (height, width). y0, y1, x0, x1: the two old rows or columns around
   every new one; wy, wx: weights of the second. line: w * padded floats of scratch memory. One of labels8 and
   labels32 is given; scores and entropy may be null. */
void densevit_decode(const float *source, int64_t class_stride, int64_t y_stride, int64_t x_stride, int w, int classes,
                     int padded, int width, const int64_t *y0, const int64_t *y1, const float *wy, const int64_t *x0,
                     const int64_t *x1, const float *wx, int first, int last, float *line, uint8_t *labels8,
                     int32_t *labels32, float *scores, float *entropy) {
    const floats zero = {0};
    const float log_classes = logf((float)classes);
    ints ramp;
    for (int i = 0; i < LANES; i++) ramp[i] = i;
    for (int x = 0; x < w; x++)
        for (int k = classes; k < padded; k++) line[(int64_t)x * padded + k] = NEVER;
    for (int y = first; y < last; y++) {
        blend_rows(source + y0[y] * y_stride, source + y1[y] * y_stride, wy[y], w, classes, padded,
                   class_stride, x_stride, line);
        for (int x = 0; x < width; x++) {
            const int64_t pixel = (int64_t)y * width + x;
            const float *a = line + x0[x] * padded, *b = line + x1[x] * padded;
            const float weight = wx[x];
            floats best = zero + NEVER;
            ints where = ramp, ids = ramp;
            for (int k = 0; k < padded; k += LANES, ids += LANES) {
                floats value = blend(a + k, b + k, weight);
                ints more = value > best; /* false for NaN */
                best = pick(more, value, best);
                where = choose(more, ids, where);
            }
            float top = best[0];
            int label = where[0];
            for (int i = 1; i < LANES; i++) /* the first class of a tie, as in torch */
                if (best[i] > top || (best[i] == top && where[i] < label)) top = best[i], label = where[i];
            if (labels8) labels8[pixel] = (uint8_t)label;
            if (labels32) labels32[pixel] = label;
            if (!scores && !entropy) continue;
            floats sums = zero, moments = zero;
            for (int k = 0; k < padded; k += LANES) {
                floats below = blend(a + k, b + k, weight) - top;
                below = pick(below < FLOOR, zero + FLOOR, below);
                floats power = pick(below > FLOOR, exponential(below), zero);
                sums += power;
                moments += power * below;
            }
            float sum = 0, moment = 0;
            for (int i = 0; i < LANES; i++) sum += sums[i], moment += moments[i];
            if (scores) scores[pixel] = 1.0f / sum;
            if (entropy) entropy[pixel] = classes > 1 ? (logf(sum) - moment / sum) / log_classes : 0.0f;
        }
    }
}
