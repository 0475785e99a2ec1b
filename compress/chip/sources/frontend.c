#include "frontend.h"

#include <string.h>

#include "frontend_tables.h"

/* The right shift of a negative number is the compiler's choice in C99; all of them keep the sign.
   One that does not is refused here. */
typedef char scene_shift_keeps_sign[((-1) >> 1) == -1 ? 1 : -1];

#define HALF (SCENE_FFT_SIZE / 2) /* points of the complex FFT that does the work */
#define NORMAL_BITS 47            /* what the larger part of a frame's largest bin is brought to */

/* A turn by an angle: cosine and sine in 2^-30, and what meets the lower parts of values. */
typedef struct {
    int32_t cosine;
    int32_t sine;
    int32_t cosine_high;
    int32_t sine_high;
} turn;

/* |value| or one less, so that or-ing many of them gives the bits that the largest needs. */
static uint64_t magnitude(int64_t value)
{
    return (uint64_t)(value ^ (value >> 63));
}

static uint32_t bit_length(uint64_t bits)
{
    uint32_t length = 0;
    while (bits > 0xFF) {
        bits >>= 8;
        length += 8;
    }
    while (bits != 0) {
        bits >>= 1;
        length++;
    }
    return length;
}

/* a * c + b * s with |a|, |b| < 2^46 and factors in 2^-30, rounded, and wrong by 2 at most: upper
   parts of 31 bits meet whole factors, lower parts of 15 bits the upper 16 bits of them. */
static inline int64_t products(int64_t a, int32_t c, int32_t c_high, int64_t b, int32_t s,
                               int32_t s_high)
{
    const int32_t low = (int32_t)(a & 0x7FFF) * c_high + (int32_t)(b & 0x7FFF) * s_high;
    const int64_t high = (int64_t)(int32_t)(a >> 15) * c + (int64_t)(int32_t)(b >> 15) * s;
    return (high + low + 0x4000) >> 15;
}

/* value * exp(-i angle) */
static inline scene_bin turned(const scene_bin *value, turn by)
{
    scene_bin found;
    found.re = products(value->re, by.cosine, by.cosine_high, value->im, by.sine, by.sine_high);
    found.im = products(value->im, by.cosine, by.cosine_high, value->re, -by.sine, -by.sine_high);
    return found;
}

static turn turn_of(int32_t cosine, int32_t sine)
{
    turn found;
    found.cosine = cosine;
    found.sine = sine;
    found.cosine_high = cosine >> 15;
    found.sine_high = sine >> 15;
    return found;
}

/* exp(-2 pi i k / SCENE_FFT_SIZE), 0 <= k < SCENE_FFT_SIZE */
static turn twiddle(size_t k)
{
    return k < HALF ? turn_of(twiddles[k][0], twiddles[k][1])
                    : turn_of(-twiddles[k - HALF][0], -twiddles[k - HALF][1]);
}

static inline scene_bin sum(scene_bin a, scene_bin b)
{
    a.re += b.re;
    a.im += b.im;
    return a;
}

static inline scene_bin difference(scene_bin a, scene_bin b)
{
    a.re -= b.re;
    a.im -= b.im;
    return a;
}

/* a - i b */
static inline scene_bin minus_i(scene_bin a, scene_bin b)
{
    a.re += b.im;
    a.im -= b.re;
    return a;
}

/* a + i b */
static inline scene_bin plus_i(scene_bin a, scene_bin b)
{
    a.re -= b.im;
    a.im += b.re;
    return a;
}

/* One stage joins `radix` transforms of `span` points each. Nothing can leave 2^46: whatever was
   joined, a value is a sum of samples, none twice (see SCENE_SAMPLE_BITS). */
#if SCENE_FFT_RADIX_2
static inline void join_2(scene_bin *p, size_t span, scene_bin b)
{
    const scene_bin a = p[0];
    p[0] = sum(a, b);
    p[span] = difference(a, b);
}

static void stage_2(scene_bin *bins, size_t span)
{
    const size_t step = SCENE_FFT_SIZE / (span * 2);
    size_t j, block;
    for (block = 0; block < HALF; block += span * 2) {
        join_2(bins + block, span, bins[block + span]);
    }
    for (j = 1; j < span; j++) {
        const turn by = twiddle(j * step);
        for (block = j; block < HALF; block += span * 2) {
            join_2(bins + block, span, turned(&bins[block + span], by));
        }
    }
}
#endif

#if SCENE_FFT_RADIX_3
static void stage_3(scene_bin *bins, size_t span)
{
    const turn half = turn_of(INT32_C(1) << 29, 0);
    const turn sine = turn_of(INT32_C(929887697), 0); /* sin(2 pi / 3) */
    const size_t step = SCENE_FFT_SIZE / (span * 3);
    size_t j, block;
    for (j = 0; j < span; j++) {
        const turn by_1 = twiddle(j * step), by_2 = twiddle(j * step * 2);
        for (block = j; block < HALF; block += span * 3) {
            scene_bin *p = bins + block;
            const scene_bin a = p[0], b = turned(p + span, by_1), c = turned(p + span * 2, by_2);
            const scene_bin both = sum(b, c), apart = difference(b, c);
            const scene_bin even = difference(a, turned(&both, half)), odd = turned(&apart, sine);
            p[0] = sum(a, both);
            p[span] = minus_i(even, odd);
            p[span * 2] = plus_i(even, odd);
        }
    }
}
#endif

#if SCENE_FFT_RADIX_4
static inline void join_4(scene_bin *p, size_t span, scene_bin b, scene_bin c, scene_bin d)
{
    const scene_bin a = p[0];
    const scene_bin even = sum(a, c), odd = sum(b, d);
    const scene_bin even_apart = difference(a, c), odd_apart = difference(b, d);
    p[0] = sum(even, odd);
    p[span] = minus_i(even_apart, odd_apart);
    p[span * 2] = difference(even, odd);
    p[span * 3] = plus_i(even_apart, odd_apart);
}

static void stage_4(scene_bin *bins, size_t span)
{
    const size_t step = SCENE_FFT_SIZE / (span * 4);
    size_t j, block;
    for (block = 0; block < HALF; block += span * 4) {
        scene_bin *p = bins + block;
        join_4(p, span, p[span], p[span * 2], p[span * 3]);
    }
    for (j = 1; j < span; j++) {
        const turn by_1 = twiddle(j * step), by_2 = twiddle(j * step * 2);
        const turn by_3 = twiddle(j * step * 3);
        for (block = j; block < HALF; block += span * 4) {
            scene_bin *p = bins + block;
            join_4(p, span, turned(p + span, by_1), turned(p + span * 2, by_2),
                   turned(p + span * 3, by_3));
        }
    }
}
#endif

#if SCENE_FFT_RADIX_5
static void stage_5(scene_bin *bins, size_t span)
{
    static const int32_t cosines[2] = {INT32_C(331804587), INT32_C(-868675499)}; /* 2, 4 pi / 5 */
    static const int32_t sines[2] = {INT32_C(1021189158), INT32_C(631129608)};
    const size_t step = SCENE_FFT_SIZE / (span * 5);
    size_t j, block, q;
    for (j = 0; j < span; j++) {
        for (block = j; block < HALF; block += span * 5) {
            scene_bin *p = bins + block;
            scene_bin z[5], both[2], apart[2]; /* sums and differences of opposite points */
            z[0] = p[0];
            for (q = 1; q < 5; q++) {
                z[q] = turned(p + span * q, twiddle(j * step * q));
            }
            for (q = 0; q < 2; q++) {
                both[q] = sum(z[1 + q], z[4 - q]);
                apart[q] = difference(z[1 + q], z[4 - q]);
            }
            p[0] = sum(z[0], sum(both[0], both[1]));
            for (q = 0; q < 2; q++) {
                const turn near = turn_of(cosines[q], 0), far = turn_of(cosines[1 - q], 0);
                const turn first = turn_of(sines[q], 0);
                const turn second = turn_of(q == 0 ? sines[1] : -sines[0], 0);
                const scene_bin even =
                    sum(z[0], sum(turned(&both[0], near), turned(&both[1], far)));
                const scene_bin odd = sum(turned(&apart[0], first), turned(&apart[1], second));
                p[span * (1 + q)] = minus_i(even, odd);
                p[span * (4 - q)] = plus_i(even, odd);
            }
        }
    }
}
#endif

static void stage(uint32_t radix, scene_bin *bins, size_t span)
{
    switch (radix) {
#if SCENE_FFT_RADIX_2
    case 2:
        stage_2(bins, span);
        break;
#endif
#if SCENE_FFT_RADIX_3
    case 3:
        stage_3(bins, span);
        break;
#endif
#if SCENE_FFT_RADIX_5
    case 5:
        stage_5(bins, span);
        break;
#endif
    default:
#if SCENE_FFT_RADIX_4
        stage_4(bins, span);
#endif
        break;
    }
}

/* Sample 0 .. SCENE_WINDOW_SAMPLES - 1 of the frame, raised by `gain` bits, under the window. */
static int64_t windowed(const scene_frontend *frontend, size_t sample, uint32_t gain)
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
    return ((int64_t)(frontend->ring[at] * ((int32_t)1 << gain)) * window_q31[mirrored] +
            ((int64_t)1 << (30 - SCENE_SAMPLE_BITS))) >>
           (31 - SCENE_SAMPLE_BITS);
}

/* Bits by which the frame's samples can be raised: quiet sound is as precise as loud sound. */
static uint32_t gain_of(const scene_frontend *frontend)
{
    uint32_t bits = 0;
    size_t i;
    for (i = 0; i < SCENE_WINDOW_SAMPLES; i++) {
        const int32_t sample = frontend->ring[i];
        bits |= (uint32_t)(sample ^ (sample >> 31));
    }
    return 15 - bit_length(bits);
}

/* The ring as twice its spectrum; gives the bits that are left above the largest part of a bin. */
static uint32_t spectrum(scene_frontend *frontend, uint32_t gain)
{
    scene_bin *bins = frontend->bins;
    uint64_t bits;
    size_t k, s, span = 1;

    for (k = 0; k < HALF; k++) { /* even samples are real parts, odd ones imaginary parts */
        const size_t from = (size_t)order[k] * 2;
        bins[k].re = windowed(frontend, from, gain);
        bins[k].im = windowed(frontend, from + 1, gain);
    }
    for (s = 0; s < sizeof radices; s++) {
        stage(radices[s], bins, span);
        span *= radices[s];
    }

    bins[HALF].re = 2 * (bins[0].re - bins[0].im);
    bins[0].re = 2 * (bins[0].re + bins[0].im);
    bins[HALF].im = bins[0].im = 0;
    bits = magnitude(bins[0].re) | magnitude(bins[HALF].re);
    for (k = 1; k <= HALF / 2; k++) { /* bins k and HALF - k of the real transform together */
        scene_bin *low = &bins[k], *high = &bins[HALF - k];
        scene_bin even, odd;
        even.re = low->re + high->re;
        even.im = low->im - high->im;
        odd.re = low->im + high->im;
        odd.im = high->re - low->re;
        odd = turned(&odd, twiddle(k));
        *low = sum(even, odd);
        *high = difference(even, odd); /* its conjugate, of the same power */
        bits |= magnitude(low->re) | magnitude(low->im);
        bits |= magnitude(high->re) | magnitude(high->im);
    }
    return NORMAL_BITS - bit_length(bits);
}

/* value^2 / 2^32 for |value| < 2^47; of the magnitude, since rounding must not give less than 0 */
static inline uint64_t squared(int64_t value)
{
    const uint64_t size = magnitude(value);
    const uint32_t high = (uint32_t)(size >> 16), low = (uint32_t)(size & 0xFFFF);
    return (uint64_t)high * high + (((uint64_t)high * low) >> 15);
}

int64_t scene_decibels_q30(uint64_t value)
{
    int32_t exponent = 63;
    uint32_t mantissa, index, part, slope, bend;
    while (value < ((uint64_t)1 << 56)) {
        value <<= 8;
        exponent -= 8;
    }
    while (value < ((uint64_t)1 << 63)) {
        value <<= 1;
        exponent--;
    }
    mantissa = (uint32_t)(value >> 32); /* 1.0 = 2^31 */
    index = (mantissa >> 23) & 0xFF;
    part = mantissa & 0x7FFFFF; /* of one step of the table, in 2^-23 */
    slope = decibels_q30[index + 1] - decibels_q30[index];
    bend = slope - (decibels_q30[index + 2] - decibels_q30[index + 1]);
    /* Newton's polynomial through three values of the table */
    return (int64_t)exponent * SCENE_OCTAVE_Q30 + decibels_q30[index] +
           (int64_t)(((uint64_t)part * slope + ((uint64_t)1 << 22)) >> 23) +
           (int64_t)(((((uint64_t)part * ((1u << 23) - part)) >> 24) * bend) >> 23);
}

static int32_t level(uint64_t power, int32_t exponent, int32_t offset_q22)
{
    int64_t level_q22;
    if (power == 0) {
        return SCENE_LOWEST_LEVEL_Q22;
    }
    level_q22 = scene_decibels_q30(power) + (int64_t)exponent * SCENE_OCTAVE_Q30;
    level_q22 = ((level_q22 + 0x80) >> 8) + offset_q22;
    if (level_q22 < SCENE_LOWEST_LEVEL_Q22) {
        return SCENE_LOWEST_LEVEL_Q22;
    }
    return level_q22 > INT32_MAX ? INT32_MAX : (int32_t)level_q22;
}

/* Between two neighbouring centres of bands, a bin's power is shared by them: a part falls to the
   lower band, the rest to the upper one. */
static void make_frame(scene_frontend *frontend, int32_t *levels_q22)
{
    const uint32_t gain = gain_of(frontend), room = spectrum(frontend, gain);
    /* 1.0 is 2^15 of int16, twice the spectrum is here, and squared() gives 2^-32 of the square. */
    const int32_t exponent =
        32 + SCENE_POWER_CUT - 2 * (16 + SCENE_SAMPLE_BITS + (int32_t)(gain + room));
    const uint32_t *share = mel_falling_q32;
    const scene_bin *bin = frontend->bins + SCENE_FIRST_BIN;
    uint64_t rising = 0;
    size_t band, i;
    for (band = 0; band <= SCENE_FRONTEND_MELS; band++) { /* what lies under centre `band` */
        uint64_t all = 0, falling = 0;
        for (i = 0; i < mel_count[band]; i++, bin++) {
            const int64_t scale = (int64_t)1 << room;
            const uint64_t power =
                (squared(bin->re * scale) + squared(bin->im * scale)) >> SCENE_POWER_CUT;
            all += power;
            falling += (power >> 32) * *share + (((power & 0xFFFFFFFFu) * *share) >> 32);
            share++;
        }
        if (band > 0) {
            levels_q22[band - 1] = level(rising + falling, exponent, mel_offset_q22[band - 1]);
        }
        rising = all - falling;
    }
}

void scene_frontend_reset(scene_frontend *frontend)
{
    memset(frontend, 0, sizeof *frontend);
    frontend->wanted = SCENE_WINDOW_SAMPLES;
}

size_t scene_frontend_push(scene_frontend *frontend, const int16_t *samples, size_t count,
                           int32_t levels_q22[SCENE_FRONTEND_MELS], int *ready)
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
        make_frame(frontend, levels_q22);
        frontend->wanted = SCENE_HOP_SAMPLES;
    }
    return taken;
}
