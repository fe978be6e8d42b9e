/* Cross entropy of bilinearly upsampled logits, and its gradient at the logits' own size, in one pass.

   As in decode.c, the two old rows around a new one are blended into a line of w pixels x classes. Every pixel blends two
   entries of the line, becomes a softmax, adds to the loss, and gives its gradient back to the two entries of a second
   line; that line goes back to the two old rows. Nothing of the size of the upsampled logits is ever written.

   Compiled by densevit.kernels.build where a C compiler is found: plain C with the vector extensions that GCC and Clang
   share. */

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

#define ALWAYS __attribute__((always_inline)) static inline /* so that one vector of classes stays in registers */

static const float LITTLE = 1.0e-30f; /* a sum of powers below it has lost some of them */

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

/* One row between upper and lower, of pixels x classes by strides, as line (w, padded), and each pixel's largest logit. */
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

ALWAYS floats blend(const float *a, const float *b, float weight) {
    const floats first = load(a);
    return first + (load(b) - first) * weight;
}

/* e ** (logit - top) of one pixel's classes, into p, and their sum. */
ALWAYS float powers(const float *a, const float *b, float weight, float top, int padded, float *p) {
    floats sums = {};
    for (int k = 0; k < padded; k += LANES) {
        const floats under = blend(a + k, b + k, weight) - top;
        floats power = exponential(pick(under < FLOOR, (floats){} + FLOOR, under));
        power = pick(under <= FLOOR, (floats){}, power); /* NaN is no less than anything: it stays */
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

/* One row: the loss, and its gradient into back (w, padded) if that is given. Returns -1, or the place of a wrong label. */
ALWAYS int64_t row_loss(const float *line, const float *tops, int classes, int padded, int width, const int64_t *x0,
                        const int64_t *x1, const float *wx, const int64_t *labels, int64_t ignored, const float *weights,
                        ints places, float *p, float *back, double *loss) {
    for (int x = 0; x < width; x++) {
        const int64_t label = labels[x];
        if (label == ignored) continue;
        if (label < 0 || label >= classes) return x;
        const float factor = weights ? weights[label] : 1.0f, right = wx[x];
        const float *a = line + x0[x] * padded, *b = line + x1[x] * padded;
        float top = tops[x0[x]] > tops[x1[x]] ? tops[x0[x]] : tops[x1[x]]; /* no logit between the two is larger */
        float total = powers(a, b, right, top, padded, p);
        if (!(total > LITTLE)) {
            top = pixel_top(a, b, right, padded);
            total = powers(a, b, right, top, padded, p);
        }
        *loss += factor * (logf(total) + top - (a[label] + (b[label] - a[label]) * right));
        if (!back) continue;
        const float share = factor / total;
        float *left = back + x0[x] * padded, *other = back + x1[x] * padded;
        for (int k = 0; k < padded; k += LANES) {
            const floats own = pick(places == (int)label - k, (floats){} + factor, (floats){});
            const floats g = load(p + k) * share - own, second = g * right;
            store(left + k, load(left + k) + (g - second));
            store(other + k, load(other + k) + second);
        }
    }
    return -1;
}

/* The weighted sum over one image of cross entropy, into loss, and its gradient, added to gradient if that is given.

   source (h, w, classes) by strides; labels (height, width); weights of the classes, or null for ones. gradient
   (h, w, classes), dense. y0, y1, x0, x1: the two old rows or columns around every new one; wy, wx: weights of the
   second. scratch: (2 * w + 1) * padded + w floats. Returns -1, or the place of a label that is neither ignored nor a
   class. */
int64_t densevit_cross_entropy(const float *source, int64_t class_stride, int64_t y_stride, int64_t x_stride, int w,
                               int classes, int padded, int height, int width, const int64_t *y0, const int64_t *y1,
                               const float *wy, const int64_t *x0, const int64_t *x1, const float *wx,
                               const int64_t *labels, int64_t ignored, const float *weights, float *scratch,
                               float *gradient, double *loss) {
    const int64_t size = (int64_t)w * padded;
    float *line = scratch, *back = line + size, *p = back + size, *tops = p + padded;
    ints places;
    for (int i = 0; i < LANES; i++) places[i] = i;
    for (int x = 0; x < w; x++)
        for (int k = classes; k < padded; k++) line[(int64_t)x * padded + k] = NEVER;
    *loss = 0.0;
    for (int y = 0; y < height; y++) {
        blend_rows(source + y0[y] * y_stride, source + y1[y] * y_stride, wy[y], w, classes, padded, class_stride, x_stride,
                   line, tops);
        memset(back, 0, size * sizeof(float));
        double row = 0.0;
        const int64_t *own = labels + (int64_t)y * width;
        float *wanted = gradient ? back : NULL;
        /* few classes fill one vector: known to the compiler, their powers need no memory */
        const int64_t wrong = padded == LANES ? row_loss(line, tops, classes, LANES, width, x0, x1, wx, own, ignored,
                                                         weights, places, p, wanted, &row)
                                              : row_loss(line, tops, classes, padded, width, x0, x1, wx, own, ignored,
                                                         weights, places, p, wanted, &row);
        if (wrong >= 0) return (int64_t)y * width + wrong;
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
