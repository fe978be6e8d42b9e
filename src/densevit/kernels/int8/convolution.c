/* Maps to 8-bit integers in one pass, where torch needs four.

   Compiled on first use by densevit.kernels.build. */

#include <stdint.h>

/* out = max(x * factor + zero, 0) to the nearest integer; none may exceed 255. */
void densevit_quantise(const float *x, int64_t count, float factor, float zero, uint8_t *out) {
    for (int64_t i = 0; i < count; i++) {
        float y = x[i] * factor + zero;
        out[i] = (uint8_t)(int32_t)((y > 0.0f ? y : 0.0f) + 0.5f);
    }
}
