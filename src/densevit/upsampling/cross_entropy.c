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

/* One row between upper and lower, of pixels x classes by strides, as line (w, padded). */
static void blend_rows(const float *upper, const float *lower, float weight, int w, int classes, int padded,
                       int64_t class_stride, int64_t x_stride, float *line) {
    for (int x = 0; x < w; x++) {
        const float *a = upper + x * x_stride, *b = lower + x * x_stride;
        float *out = line + (int64_t)x * padded;
        for (int k = 0; k < classes; k++) {
            const float first = a[k * class_stride], second = b[k * class_stride];
            out[k] = first + (second - first) * weight;
        }
    }
}

/* One pixel: its classes from a and b, powers into p. Returns the loss; sum becomes the powers' total. */
static inline float pixel_loss(const float *a, const float *b, float weight, int padded, int64_t label, float *p,
                               float *sum) {
    floats best = (floats){} + NEVER, sums = {};
    for (int k = 0; k < padded; k += LANES) {
        floats first = load(a + k), value = first + (load(b + k) - first) * weight;
        store(p + k, value);
        best = pick(value > best, value, best);
    }
    float top = best[0], total = 0.0f;
    for (int i = 1; i < LANES; i++) top = best[i] > top ? best[i] : top;
    const float own = p[label];
    for (int k = 0; k < padded; k += LANES) {
        floats below = load(p + k) - top;
        floats power = exponential(pick(below < FLOOR, (floats){} + FLOOR, below));
        power = pick(below <= FLOOR, (floats){}, power); /* NaN is no less than anything: it stays */
        store(p + k, power);
        sums += power;
    }
    for (int i = 0; i < LANES; i++) total += sums[i];
    *sum = total;
    return logf(total) + top - own;
}

/* The weighted sum over one image of cross entropy, into loss, and its gradient, added to gradient if that is given.

   source (h, w, classes) by strides; labels (height, width); weights of the classes, or null for ones. gradient
   (h, w, classes), dense. y0, y1, x0, x1: the two old rows or columns around every new one; wy, wx: weights of the
   second. scratch: (2 * w + 1) * padded floats. Returns -1, or the place of a label that is neither ignored nor a class. */
int64_t densevit_cross_entropy(const float *source, int64_t class_stride, int64_t y_stride, int64_t x_stride, int w,
                               int classes, int padded, int height, int width, const int64_t *y0, const int64_t *y1,
                               const float *wy, const int64_t *x0, const int64_t *x1, const float *wx,
                               const int64_t *labels, int64_t ignored, const float *weights, float *scratch,
                               float *gradient, double *loss) {
    const int64_t size = (int64_t)w * padded;
    float *line = scratch, *back = line + size, *p = back + size;
    for (int x = 0; x < w; x++)
        for (int k = classes; k < padded; k++) line[(int64_t)x * padded + k] = NEVER;
    *loss = 0.0;
    for (int y = 0; y < height; y++) {
        blend_rows(source + y0[y] * y_stride, source + y1[y] * y_stride, wy[y], w, classes, padded, class_stride, x_stride,
                   line);
        memset(back, 0, size * sizeof(float));
        double row = 0.0;
        for (int x = 0; x < width; x++) {
            const int64_t label = labels[(int64_t)y * width + x];
            if (label == ignored) continue;
            if (label < 0 || label >= classes) return (int64_t)y * width + x;
            const float factor = weights ? weights[label] : 1.0f, right = wx[x];
            float sum;
            row += factor * pixel_loss(line + x0[x] * padded, line + x1[x] * padded, right, padded, label, p, &sum);
            if (!gradient) continue;
            const float share = factor / sum;
            p[label] -= sum;
            float *a = back + x0[x] * padded, *b = back + x1[x] * padded;
            for (int k = 0; k < padded; k += LANES) {
                floats g = load(p + k) * share, second = g * right;
                store(a + k, load(a + k) + (g - second));
                store(b + k, load(b + k) + second);
            }
        }
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
