/* The product that the package's float32 kernels share: 6 rows times 64 packed columns. Define LANES as 16 first. */

#include "vectors.h"

#define TALL 6 /* a tile has 6 rows of 4 vectors: 24 of the 32 registers accumulate */
#define WIDE 4
#define PANEL (WIDE * LANES)

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* out (TALL, wide vectors) = start + rows (TALL, terms) times the first wide vectors of a panel. */
ALWAYS_INLINE void tile_of(const float *const *rows, int64_t terms, const float *panel, const float *start,
                           int64_t start_row, float *out, const int wide) {
    floats sums[TALL][WIDE];
    for (int r = 0; r < TALL; r++)
        for (int j = 0; j < wide; j++) sums[r][j] = (floats){};
    for (int64_t c = 0; c < terms; c++) {
        floats w[WIDE];
        for (int j = 0; j < wide; j++) w[j] = load(panel + c * PANEL + j * LANES);
        for (int r = 0; r < TALL; r++)
            for (int j = 0; j < wide; j++) sums[r][j] += rows[r][c] * w[j];
    }
    for (int r = 0; r < TALL; r++)
        for (int j = 0; j < wide; j++) store(out + r * PANEL + j * LANES, load(start + r * start_row + j * LANES) + sums[r][j]);
}

/* The same for 1 to WIDE vectors. */
ALWAYS_INLINE void multiply_tile(const float *const *rows, int64_t terms, const float *panel, const float *start,
                                 int64_t start_row, float *out, int vectors) {
    switch (vectors) {
    case 1: tile_of(rows, terms, panel, start, start_row, out, 1); break;
    case 2: tile_of(rows, terms, panel, start, start_row, out, 2); break;
    case 3: tile_of(rows, terms, panel, start, start_row, out, 3); break;
    default: tile_of(rows, terms, panel, start, start_row, out, WIDE);
    }
}
