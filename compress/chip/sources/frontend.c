#include "frontend.h"

#include <string.h>

#include "frontend_tables.h"

/* The right shift of a negative number is the compiler's choice in C99; all of them keep the sign.
   One that does not is refused here. */
typedef char scene_shift_keeps_sign[((-1) >> 1) == -1 ? 1 : -1];

#define HALF (SCENE_FFT_SIZE / 2) /* points of the complex FFT that does the work */
#define TWIDDLE_BITS 30
#define SAMPLE_BITS 13 /* a sample of 1 stands for 2^13 in the FFT */
/* Below this magnitude of both parts, no butterfly (radix 5: factor 5 sqrt 2) leaves int32. */
#define HEADROOM_BITS 28

/* |value| or one less, so that or-ing many of them gives the bits that the largest needs. */
static uint32_t magnitude(int32_t value)
{
    return (uint32_t)(value ^ (value >> 31));
}

static uint32_t bit_length(uint32_t bits)
{
    uint32_t length = 0;
    while (bits != 0) {
        bits >>= 1;
        length++;
    }
    return length;
}

static int32_t shifted(int32_t value, uint32_t shift)
{
    return shift == 0 ? value : (value + ((int32_t)1 << (shift - 1))) >> shift;
}

/* a * c + b * s, both factors of TWIDDLE_BITS fraction bits */
static int32_t rotated(int32_t a, int32_t c, int32_t b, int32_t s)
{
    const int64_t sum = (int64_t)a * c + (int64_t)b * s;
    return (int32_t)((sum + ((int64_t)1 << (TWIDDLE_BITS - 1))) >> TWIDDLE_BITS);
}

/* exp(-2 pi i k / SCENE_FFT_SIZE) = cosine - i sine, 0 <= k < SCENE_FFT_SIZE */
static void twiddle(size_t k, int32_t *cosine, int32_t *sine)
{
    if (k < HALF) {
        *cosine = twiddles[k][0];
        *sine = twiddles[k][1];
    } else {
        *cosine = -twiddles[k - HALF][0];
        *sine = -twiddles[k - HALF][1];
    }
}

/* A bin scaled down by the block's shift and turned by twiddle k. */
static void load(const scene_bin *bin, uint32_t shift, size_t k, int32_t *re, int32_t *im)
{
    const int32_t a = shifted(bin->z.re, shift);
    const int32_t b = shifted(bin->z.im, shift);
    if (k == 0) {
        *re = a;
        *im = b;
    } else {
        int32_t cosine, sine;
        twiddle(k, &cosine, &sine);
        *re = rotated(a, cosine, b, sine);
        *im = rotated(b, cosine, a, -sine);
    }
}

static uint32_t store(scene_bin *bin, int32_t re, int32_t im)
{
    bin->z.re = re;
    bin->z.im = im;
    return magnitude(re) | magnitude(im);
}

/* One stage joins `radix` transforms of `span` points each; gives the or of all magnitudes. */
#if SCENE_FFT_RADIX_2
static uint32_t stage_2(scene_bin *bins, size_t span, uint32_t shift)
{
    const size_t turn = SCENE_FFT_SIZE / (span * 2);
    uint32_t bits = 0;
    size_t j, block;
    for (j = 0; j < span; j++) {
        for (block = j; block < HALF; block += span * 2) {
            scene_bin *p = bins + block;
            int32_t ar, ai, br, bi;
            load(p, shift, 0, &ar, &ai);
            load(p + span, shift, j * turn, &br, &bi);
            bits |= store(p, ar + br, ai + bi);
            bits |= store(p + span, ar - br, ai - bi);
        }
    }
    return bits;
}
#endif

#if SCENE_FFT_RADIX_3
static uint32_t stage_3(scene_bin *bins, size_t span, uint32_t shift)
{
    static const int32_t half = INT32_C(1) << (TWIDDLE_BITS - 1);
    static const int32_t sin_third = INT32_C(929887697); /* sin(2 pi / 3) */
    const size_t turn = SCENE_FFT_SIZE / (span * 3);
    uint32_t bits = 0;
    size_t j, block;
    for (j = 0; j < span; j++) {
        for (block = j; block < HALF; block += span * 3) {
            scene_bin *p = bins + block;
            int32_t ar, ai, br, bi, cr, ci, mr, mi, dr, di;
            load(p, shift, 0, &ar, &ai);
            load(p + span, shift, j * turn, &br, &bi);
            load(p + span * 2, shift, j * turn * 2, &cr, &ci);
            mr = ar - rotated(br, half, cr, half);
            mi = ai - rotated(bi, half, ci, half);
            dr = rotated(br, sin_third, cr, -sin_third);
            di = rotated(bi, sin_third, ci, -sin_third);
            bits |= store(p, ar + br + cr, ai + bi + ci);
            bits |= store(p + span, mr + di, mi - dr);
            bits |= store(p + span * 2, mr - di, mi + dr);
        }
    }
    return bits;
}
#endif

#if SCENE_FFT_RADIX_4
static uint32_t stage_4(scene_bin *bins, size_t span, uint32_t shift)
{
    const size_t turn = SCENE_FFT_SIZE / (span * 4);
    uint32_t bits = 0;
    size_t j, block;
    for (j = 0; j < span; j++) {
        for (block = j; block < HALF; block += span * 4) {
            scene_bin *p = bins + block;
            int32_t ar, ai, br, bi, cr, ci, dr, di;
            int32_t even_r, even_i, odd_r, odd_i;
            load(p, shift, 0, &ar, &ai);
            load(p + span, shift, j * turn, &br, &bi);
            load(p + span * 2, shift, j * turn * 2, &cr, &ci);
            load(p + span * 3, shift, j * turn * 3, &dr, &di);
            even_r = ar + cr;
            even_i = ai + ci;
            odd_r = br + dr;
            odd_i = bi + di;
            bits |= store(p, even_r + odd_r, even_i + odd_i);
            bits |= store(p + span * 2, even_r - odd_r, even_i - odd_i);
            even_r = ar - cr;
            even_i = ai - ci;
            odd_r = br - dr;
            odd_i = bi - di;
            bits |= store(p + span, even_r + odd_i, even_i - odd_r);
            bits |= store(p + span * 3, even_r - odd_i, even_i + odd_r);
        }
    }
    return bits;
}
#endif

#if SCENE_FFT_RADIX_5
static uint32_t stage_5(scene_bin *bins, size_t span, uint32_t shift)
{
    static const int32_t c1 = INT32_C(331804587), s1 = INT32_C(1021189158); /* 2 pi / 5 */
    static const int32_t c2 = INT32_C(-868675499), s2 = INT32_C(631129608); /* 4 pi / 5 */
    const size_t turn = SCENE_FFT_SIZE / (span * 5);
    uint32_t bits = 0;
    size_t j, block;
    for (j = 0; j < span; j++) {
        for (block = j; block < HALF; block += span * 5) {
            scene_bin *p = bins + block;
            int32_t re[5], im[5], pr[2], pi[2], mr[2], mi[2];
            size_t q;
            for (q = 0; q < 5; q++) {
                load(p + span * q, shift, j * turn * q, &re[q], &im[q]);
            }
            for (q = 0; q < 2; q++) { /* sums and differences of opposite points */
                pr[q] = re[1 + q] + re[4 - q];
                pi[q] = im[1 + q] + im[4 - q];
                mr[q] = re[1 + q] - re[4 - q];
                mi[q] = im[1 + q] - im[4 - q];
            }
            bits |= store(p, re[0] + pr[0] + pr[1], im[0] + pi[0] + pi[1]);
            for (q = 0; q < 2; q++) {
                const int32_t c = q == 0 ? c1 : c2, d = q == 0 ? c2 : c1;
                const int32_t s = q == 0 ? s1 : s2, t = q == 0 ? s2 : -s1;
                const int32_t even_r = re[0] + rotated(pr[0], c, pr[1], d);
                const int32_t even_i = im[0] + rotated(pi[0], c, pi[1], d);
                const int32_t odd_r = rotated(mr[0], s, mr[1], t);
                const int32_t odd_i = rotated(mi[0], s, mi[1], t);
                bits |= store(p + span * (1 + q), even_r + odd_i, even_i - odd_r);
                bits |= store(p + span * (4 - q), even_r - odd_i, even_i + odd_r);
            }
        }
    }
    return bits;
}
#endif

static uint32_t stage(uint32_t radix, scene_bin *bins, size_t span, uint32_t shift)
{
    switch (radix) {
#if SCENE_FFT_RADIX_2
    case 2:
        return stage_2(bins, span, shift);
#endif
#if SCENE_FFT_RADIX_3
    case 3:
        return stage_3(bins, span, shift);
#endif
#if SCENE_FFT_RADIX_5
    case 5:
        return stage_5(bins, span, shift);
#endif
    default:
#if SCENE_FFT_RADIX_4
        return stage_4(bins, span, shift);
#else
        return 0;
#endif
    }
}

static int32_t windowed(const scene_frontend *frontend, size_t sample)
{
    size_t at, mirrored;
    if (sample >= SCENE_WINDOW_SAMPLES) {
        return 0; /* zeros between the end of the window and the size of the FFT */
    }
    at = frontend->head + sample;
    if (at >= SCENE_WINDOW_SAMPLES) {
        at -= SCENE_WINDOW_SAMPLES;
    }
    mirrored = sample <= SCENE_WINDOW_SAMPLES / 2 ? sample : SCENE_WINDOW_SAMPLES - sample;
    return (int32_t)(((int64_t)frontend->ring[at] * window_q30[mirrored] +
                      ((int64_t)1 << (29 - SAMPLE_BITS))) >>
                     (30 - SAMPLE_BITS));
}

/* Bits by which the block exceeds its headroom. */
static uint32_t excess(uint32_t bits)
{
    const uint32_t length = bit_length(bits);
    return length > HEADROOM_BITS ? length - HEADROOM_BITS : 0;
}

static uint64_t squared(int32_t re, int32_t im)
{
    return (uint64_t)((int64_t)re * re) + (uint64_t)((int64_t)im * im);
}

/* The ring as power per bin; gives e with: power = bins[k].power * 2^e / 2^(2 SAMPLE_BITS + 32). */
static uint32_t spectrum(scene_frontend *frontend)
{
    scene_bin *bins = frontend->bins;
    uint32_t bits = 0, down = 0, shift, cut;
    size_t k, s, span = 1;

    for (k = 0; k < HALF; k++) { /* even samples are real parts, odd ones imaginary parts */
        const size_t from = (size_t)order[k] * 2;
        bits |= store(&bins[k], windowed(frontend, from), windowed(frontend, from + 1));
    }
    for (s = 0; s < sizeof radices; s++) {
        shift = excess(bits);
        down += shift;
        bits = stage(radices[s], bins, span, shift);
        span *= radices[s];
    }
    shift = excess(bits);
    down += shift;
    /* Twice the spectrum is at most 2^(length + 2), its power 2^(2 length + 4). */
    cut = 2 * bit_length(bits >> shift) + 4;
    cut = cut > SCENE_POWER_BITS ? cut - SCENE_POWER_BITS : 0;

    for (k = 0; k <= HALF / 2; k++) { /* bins k and HALF - k of the real transform together */
        scene_bin *low = &bins[k], *high = &bins[HALF - k];
        const int32_t a = shifted(low->z.re, shift), b = shifted(low->z.im, shift);
        if (k == 0) {
            low->power = squared(2 * (a + b), 0) >> cut;
            high->power = squared(2 * (a - b), 0) >> cut;
        } else {
            const int32_t c = shifted(high->z.re, shift), d = shifted(high->z.im, shift);
            const int32_t even_r = a + c, even_i = b - d;
            int32_t cosine, sine, odd_r, odd_i;
            twiddle(k, &cosine, &sine);
            odd_r = rotated(b + d, cosine, a - c, -sine);
            odd_i = -rotated(a - c, cosine, b + d, sine);
            low->power = squared(even_r + odd_r, even_i + odd_i) >> cut;
            high->power = squared(even_r - odd_r, even_i - odd_i) >> cut;
        }
    }
    return 2 * down + cut;
}

int32_t scene_log2_q20(uint64_t value)
{
    int32_t exponent = 63;
    uint32_t mantissa, index, step;
    while (value < ((uint64_t)1 << 56)) {
        value <<= 8;
        exponent -= 8;
    }
    while (value < ((uint64_t)1 << 63)) {
        value <<= 1;
        exponent--;
    }
    mantissa = (uint32_t)(value >> 32); /* 1.0 = 2^31 */
    index = (mantissa >> (31 - SCENE_LOG2_BITS)) & ((1u << SCENE_LOG2_BITS) - 1u);
    step = (mantissa >> (15 - SCENE_LOG2_BITS)) & 0xFFFFu;
    step *= (uint32_t)(log2_q20[index + 1] - log2_q20[index]);
    return exponent * (1 << 20) + (int32_t)(log2_q20[index] + ((step + 0x8000u) >> 16));
}

static int16_t level(uint64_t sum, uint32_t exponent, int32_t offset_q20)
{
    int64_t level_q8;
    if (sum == 0) {
        return SCENE_LOWEST_LEVEL_Q8;
    }
    level_q8 = (int64_t)scene_log2_q20(sum) + (int64_t)exponent * (1 << 20);
    level_q8 = level_q8 * SCENE_OCTAVE_Q20 + (int64_t)offset_q20 * (1 << 20); /* now Q40 */
    level_q8 = (level_q8 + ((int64_t)1 << 31)) >> 32;
    if (level_q8 < SCENE_LOWEST_LEVEL_Q8) {
        return SCENE_LOWEST_LEVEL_Q8;
    }
    return level_q8 > INT16_MAX ? INT16_MAX : (int16_t)level_q8;
}

static void make_frame(scene_frontend *frontend, int16_t *levels_q8)
{
    const uint32_t exponent = spectrum(frontend);
    const uint16_t *weight = mel_weights;
    size_t band, i;
    for (band = 0; band < SCENE_FRONTEND_MELS; band++) {
        const scene_bin *bin = frontend->bins + mel_first[band];
        uint64_t sum = 0;
        for (i = 0; i < mel_count[band]; i++) {
            sum += bin[i].power * *weight++;
        }
        levels_q8[band] = level(sum, exponent, mel_offset_q20[band]);
    }
}

void scene_frontend_reset(scene_frontend *frontend)
{
    memset(frontend, 0, sizeof *frontend);
    frontend->wanted = SCENE_WINDOW_SAMPLES;
}

size_t scene_frontend_push(scene_frontend *frontend, const int16_t *samples, size_t count,
                           int16_t levels_q8[SCENE_FRONTEND_MELS], int *ready)
{
    const size_t taken = count < frontend->wanted ? count : frontend->wanted;
    size_t i;
    for (i = 0; i < taken; i++) {
        frontend->ring[frontend->head] = samples[i];
        frontend->head = frontend->head + 1 < SCENE_WINDOW_SAMPLES ? frontend->head + 1 : 0;
    }
    frontend->wanted -= taken;
    *ready = frontend->wanted == 0;
    if (*ready) {
        make_frame(frontend, levels_q8);
        frontend->wanted = SCENE_HOP_SAMPLES;
    }
    return taken;
}
