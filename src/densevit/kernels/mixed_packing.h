/* Queries, keys and values packed for mixed_attention.c, which defines the sizes and forms first. */

typedef struct { const float *at; int64_t token; } rows; /* token: distance from one to the next, in floats */

/* Tokens of a head are far apart, so that the processor does not foresee the next ones. */
ALWAYS_INLINE const float *row_of(rows x, int64_t n, int width) {
    const float *at = x.at + n * x.token;
    for (int c = 0; c < width; c += LANES) __builtin_prefetch(at + AHEAD * x.token + c);
    return at;
}

static inline int64_t whole_panels(int64_t tokens) { return (tokens + PANEL - 1) / PANEL * PANEL; }

/* Bytes of magnitude up to 127, plus offset, for one row less mean, their sum, as of signed ones, and the row's squared
   length. Returns their scale, NaN where a value is not finite. */
ALWAYS_INLINE float quantised(const float *x, const float *mean, int vectors, int offset, int32_t *out, int32_t *sum,
                              float *squared) {
    floats centred[WIDEST], squares = {};
    ints largest = {}, added = {};
    for (int c = 0; c < vectors; c++) {
        centred[c] = load(x + c * LANES) - load(mean + c * LANES);
        largest = (ints)_mm512_max_epi32((__m512i)largest, (__m512i)((ints)centred[c] & MAGNITUDE));
        squares += centred[c] * centred[c];
    }
    const int32_t bits = _mm512_reduce_max_epi32((__m512i)largest); /* floats without signs are ordered as integers */
    const float found = _mm512_cvtss_f32((__m512)((ints){} + bits)), high = found > SMALLEST ? found : SMALLEST;
    for (int c = 0; c < vectors; c++) {
        ints whole = (ints)_mm512_cvtps_epi32((__m512)(centred[c] * (127.0f / high))) + offset;
        ((bytes *)out)[c] = __builtin_convertvector(whole, bytes);
        added += whole;
    }
    *sum = _mm512_reduce_add_epi32((__m512i)added);
    *squared = _mm512_reduce_add_ps((__m512)squares);
    return bits < INFINITE ? high / 127.0f : NAN;
}

/* One row times factor as bfloat16. Returns its squared length. */
ALWAYS_INLINE float halved(const float *x, int vectors, float factor, int32_t *out) {
    floats squares = {};
    for (int c = 0; c < vectors; c++) {
        const floats y = load(x + c * LANES) * factor;
        const ints pair = rounded(y, (floats){});
        *(__m256i *)(out + c * LANES / 2) = _mm512_castsi512_si256((__m512i)pair);
        squares += y * y;
    }
    return _mm512_reduce_add_ps((__m512)squares);
}

/* Keys as panels (words, PANEL), a word of 32 bits being four integers, each key with its scale, or two bfloat16. The
   last token fills the last panel: it does not change any maximum. Returns the largest length of a key, squared. */
ALWAYS_INLINE float pack_keys(rows k, int tokens, int vectors, const int form, int32_t *keys, float *scales) {
    const int width = vectors * LANES, words = form == INT8 ? width / 4 : width / 2;
    floats sum[WIDEST] = {};
    float mean[WIDEST * LANES], longest = 0.0f;
    int32_t some[LANES][WIDEST * LANES / 2], unused;
    for (int n = 0; n < tokens && form == INT8; n++) {
        const float *key = row_of(k, n, width);
        for (int c = 0; c < vectors; c++) sum[c] += load(key + c * LANES);
    }
    for (int c = 0; c < vectors; c++) store(mean + c * LANES, sum[c] / (float)tokens);
    for (int n = 0; n < whole_panels(tokens); n += LANES) {
        for (int i = 0; i < LANES; i++) {
            const float *key = row_of(k, n + i < tokens ? n + i : tokens - 1, width);
            float squared;
            if (form == INT8)
                scales[n + i] = quantised(key, mean, vectors, 128, some[i], &unused, &squared);
            else
                squared = halved(key, vectors, 1.0f, some[i]);
            if (!(squared <= longest)) longest = squared; /* NaN too */
        }
        int32_t *to = keys + (int64_t)(n / PANEL) * PANEL * words + n % PANEL;
        int w = 0;
        for (; w + LANES <= words; w += LANES)
            transpose((float *)some[0] + w, WIDEST * LANES / 2, (float *)to + w * PANEL, PANEL);
        for (; w < words; w++)
            for (int i = 0; i < LANES; i++) to[w * PANEL + i] = some[i][w];
    }
    return longest;
}

/* Two tokens' values of a channel share a word; there are none beyond the last token. Returns whether none is large. */
ALWAYS_INLINE int pack_values(rows v, int tokens, int width, int32_t *values) {
    const ints order = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const __m512i interleaved = (__m512i)(order | (order + LANES) << 16);
    ints largest = {};
    for (int n = 0; n < tokens; n += 2) {
        const float *even = row_of(v, n, width), *odd = row_of(v, n + 1, width);
        for (int c = 0; c < width; c += LANES) {
            const floats first = load(even + c), second = n + 1 < tokens ? load(odd + c) : (floats){};
            largest = (ints)_mm512_max_epi32((__m512i)largest, (__m512i)((ints)first & MAGNITUDE));
            largest = (ints)_mm512_max_epi32((__m512i)largest, (__m512i)((ints)second & MAGNITUDE));
            ints pair = rounded(first, second);
            pair = (ints)_mm512_permutexvar_epi16(interleaved, (__m512i)pair);
            store_words(values + (int64_t)(n / 2) * width + c, pair);
        }
    }
    return _mm512_cvtss_f32((__m512)((ints){} + _mm512_reduce_max_epi32((__m512i)largest))) <= CALM_VALUE;
}

/* Packs BLOCK queries, of which count exist. Logits are sums that begin with start, times the query's scale. lengths
   receives their lengths, squared, times the square of scale. */
ALWAYS_INLINE void pack_queries(rows q, int count, int vectors, float scale, const int form, int32_t *queries,
                                float *scales, int32_t *start, float *lengths) {
    static const float zeros[WIDEST * LANES];
    const int words = vectors * LANES / (form == INT8 ? 4 : 2);
    for (int r = 0; r < (count + ROWS - 1) / ROWS * ROWS; r++) {
        const float *x = r < count ? row_of(q, r, vectors * LANES) : zeros;
        start[r] = 0;
        scales[r] = 1.0f;
        if (form == INT8) {
            scales[r] = quantised(x, zeros, vectors, 0, queries + r * words, start + r, lengths + r) * scale;
            lengths[r] *= scale * scale;
        } else
            lengths[r] = halved(x, vectors, scale, queries + r * words);
        start[r] *= -128; /* the keys' offset */
    }
}
