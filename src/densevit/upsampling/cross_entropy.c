/* Cross entropy of bilinearly upsampled logits, and its gradient at the logits' own size, in one pass.

   As in decode.c, the two old rows around a new one are interpolated into a line of w pixels x classes. For every
   pixel, two entries of the line are interpolated, their softmax is added to the loss, and its gradient is added
   to the two entries of a second line, which in turn is added to the two old rows. Nothing as large as the
   upsampled logits exists.

   Compiled on first use by densevit.kernels.build: C with the vector extensions that GCC and Clang share. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif

#include "vectors.h"

int densevit_lanes(void) { return LANES; }

static const float LITTLE = 1.0e-30f; /* a sum of exponentials below it may have lost some to underflow */

static inline float sum(floats v) {
    typedef float four __attribute__((vector_size(16)));
    four part[LANES / 4];
    memcpy(part, &v, sizeof v);
    for (int i = 1; i < LANES / 4; i++) part[0] += part[i];
    return (part[0][0] + part[0][1]) + (part[0][2] + part[0][3]);
}

static inline float largest(floats v) {
    float top = v[0];
    for (int i = 1; i < LANES; i++) top = v[i] > top ? v[i] : top;
    return top;
}

/* Interpolate one row between upper and lower (by strides) into line (w, padded), and find each pixel's largest
   logit. */
static void blend_rows(const float *upper, const float *lower, float weight, int w, int classes, int padded,
                       int64_t class_stride, int64_t x_stride, float *line, float *tops) {
    for (int x = 0; x < w; x++) {
        const float *a = upper + x * x_stride, *b = lower + x * x_stride;
        float *out = line + (int64_t)x * padded;
        tops[x] = NEVER;
        for (int k = 0; k < classes; k++) {
            const float first = a[k * class_stride], second = b[k * class_stride];
            out[k] = first + (second - first) * weight;
            tops[x] = out[k] > tops[x] ? out[k] : tops[x];
        }
    }
}

ALWAYS_INLINE floats blend(const float *a, const float *b, float weight) {
    const floats first = load(a);
    return first + (load(b) - first) * weight;
}

/* Write e ** (logit - top) of one pixel's classes to p; returns their sum. */
ALWAYS_INLINE float powers(const float *a, const float *b, float weight, float top, int padded, float *p) {
    floats sums = {};
    for (int k = 0; k < padded; k += LANES) {
        const floats under = blend(a + k, b + k, weight) - top;
        floats power = exponential(pick(under < FLOOR, (floats){} + FLOOR, under));
        power = pick(under <= FLOOR, (floats){}, power); /* comparisons with NaN are false: it stays */
        store(p + k, power);
        sums += power;
    }
    return sum(sums);
}

/* The largest logit of one pixel. */
static float pixel_top(const float *a, const float *b, float weight, int padded) {
    floats best = (floats){} + NEVER;
    for (int k = 0; k < padded; k += LANES) {
        const floats value = blend(a + k, b + k, weight);
        best = pick(value > best, value, best);
    }
    return largest(best);
}

/* Add one row's loss, and its gradient to back (w, padded) unless null. Returns -1, or the column of an invalid
   label. */
ALWAYS_INLINE int64_t row_loss(const float *line, const float *tops, int classes, int padded, int width,
                               const int64_t *x0, const int64_t *x1, const float *wx, const int64_t *labels,
                               int64_t ignored, const float *weights, ints ramp, float *p, float *back,
                               double *loss) {
    for (int x = 0; x < width; x++) {
        const int64_t label = labels[x];
        if (label == ignored) continue;
        if (label < 0 || label >= classes) return x;
        const float factor = weights ? weights[label] : 1.0f, right = wx[x];
        const float *a = line + x0[x] * padded, *b = line + x1[x] * padded;
        float top = tops[x0[x]] > tops[x1[x]] ? tops[x0[x]] : tops[x1[x]]; /* bounds the interpolated logits */
        float total = powers(a, b, right, top, padded, p);
        if (!(total > LITTLE)) { /* the bound was too high: use the pixel's own maximum */
            top = pixel_top(a, b, right, padded);
            total = powers(a, b, right, top, padded, p);
        }
        *loss += factor * (logf(total) + top - (a[label] + (b[label] - a[label]) * right));
        if (!back) continue;
        const float share = factor / total;
        float *left = back + x0[x] * padded, *other = back + x1[x] * padded;
        for (int k = 0; k < padded; k += LANES) {
            const floats one_hot = pick(ramp == (int)label - k, (floats){} + factor, (floats){});
            const floats g = load(p + k) * share - one_hot, second = g * right;
            store(left + k, load(left + k) + (g - second));
            store(other + k, load(other + k) + second);
        }
    }
    return -1;
}

/* Write the weighted sum of cross entropy over one image to loss, and add its gradient to gradient unless null.

   source (h, w, classes) by strides; labels (height, width); weights of the classes, or null for ones; gradient
   (h, w, classes), contiguous. y0, y1, x0, x1: the two old rows or columns around every new one; wy, wx: weights
   of the second. scratch: (2 * w + 1) * padded + w floats. Returns -1, or the index of a label that is neither
   ignored nor a class. */
int64_t densevit_cross_entropy(const float *source, int64_t class_stride, int64_t y_stride, int64_t x_stride, int w,
                               int classes, int padded, int height, int width, const int64_t *y0, const int64_t *y1,
                               const float *wy, const int64_t *x0, const int64_t *x1, const float *wx,
                               const int64_t *labels, int64_t ignored, const float *weights, float *scratch,
                               float *gradient, double *loss) {
    const int64_t size = (int64_t)w * padded;
    float *line = scratch, *back = line + size, *p = back + size, *tops = p + padded;
    ints ramp;
    for (int i = 0; i < LANES; i++) ramp[i] = i;
    for (int x = 0; x < w; x++)
        for (int k = classes; k < padded; k++) line[(int64_t)x * padded + k] = NEVER;
    *loss = 0.0;
    for (int y = 0; y < height; y++) {
        blend_rows(source + y0[y] * y_stride, source + y1[y] * y_stride, wy[y], w, classes, padded,
                   class_stride, x_stride, line, tops);
        memset(back, 0, size * sizeof(float));
        double row = 0.0;
        const int64_t *row_labels = labels + (int64_t)y * width;
        float *row_back = gradient ? back : NULL;
        /* If the classes fit one vector and the compiler knows it, their exponentials stay in a register. */
        const int64_t invalid =
            padded == LANES ? row_loss(line, tops, classes, LANES, width, x0, x1, wx, row_labels, ignored, weights,
                                       ramp, p, row_back, &row)
                            : row_loss(line, tops, classes, padded, width, x0, x1, wx, row_labels, ignored, weights,
                                       ramp, p, row_back, &row);
        if (invalid >= 0) return (int64_t)y * width + invalid;
        *loss += row;
        if (!gradient) continue;
        float *upper = gradient + y0[y] * w * classes, *lower = gradient + y1[y] * w * classes;
        for (int x = 0; x < w; x++)
            for (int k = 0; k < classes; k++) {
                const float g = back[(int64_t)x * padded + k], second = g * wy[y];
                upper[x * classes + k] += g - second;
                lower[x * classes + k] += second;
            }
    }
    return -1;
}
