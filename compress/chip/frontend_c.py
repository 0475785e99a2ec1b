"""The front end as C: files of ``sources/`` with tables for one :class:`FrontEnd`.

    frontend.h, frontend.c                the same text for every front end
    frontend_settings.h, frontend_tables.h   sizes; window, twiddles, mel bands, log2: from here
    frontend_test.c, frontend_golden.h    a stretch of sound and what Python makes of it
    scene.h, scene.c                      the stream: front end, network, smoothed decision
    scene_settings.h, scene_tables.h      when it decides; its softmax and its mean over time

Everything is kept well below the 1/256 dB in which levels are stored: samples are raised to full
scale before the window, the FFT has 46 bits and no scaling between stages, mel weights 32 bits,
decibels come from a table with second differences (error 0.00000004 dB), and the one rounding to
1/256 dB is the last step. Levels so differ from exact ones by rounding only where they lie next to
a tie.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.data.audio import step_frames
from compress.data.sets import CODES_PER_DB
from compress.errors import InputError
from compress.frontend import (
    FLOOR_DB,
    FrontEnd,
    hann_window,
    mel_edges_hz,
    mel_power,
)
from compress.runs import write_text

SOURCES = Path(__file__).parent / "sources"
SMOOTHING_SECONDS = 2.0

LEVEL_BITS = 22  # of a level's fraction, before it is rounded to 1/256 dB
_LOG_STEPS = 256
_RADICES = (4, 2, 3, 5)
_LARGEST_FFT = 32_768
_PROBABILITY_ONE = 65_535
_OCTAVE_DB = 10.0 * math.log10(2.0)
_LARGEST_VALUE = 2.0**46  # of the FFT, see products() in frontend.c
_FULL_SCALE = 32_768
_GOLDEN_FRAMES = 8
_LOWEST = -(2**31)


@dataclass(frozen=True)
class MelTable:
    """The filter bank as ``frontend.c`` reads it, by what lies between neighbouring centres.

    Between the centres of bands m - 1 and m, a bin's power falls to band m - 1 by a share (in
    2^-32) and rises to band m by the rest. first_bin: the first one above the lowest edge. count
    (mels + 1,): bins up to each centre, and up to the highest edge. offset_q22 (mels,): dB of one
    unit of a band's sum. power_cut: bits by which power is shifted so that no sum overflows.
    """

    first_bin: int
    count: np.ndarray
    falling_q32: np.ndarray
    offset_q22: np.ndarray
    power_cut: int


def frontend_texts(frontend: FrontEnd) -> dict[str, str]:
    """The front end and its test: names of files and what is in them.

    Raises InputError where the FFT size has other prime factors than 2, 3 and 5, or is odd.
    """
    return {
        **_copied("frontend.h", "frontend.c", "frontend_test.c"),
        "frontend_settings.h": settings_header(frontend),
        "frontend_tables.h": tables_header(frontend),
        "frontend_golden.h": golden_header(frontend),
    }


def scene_texts(
    frontend: FrontEnd,
    output_scale: float,
    *,
    hop_seconds: float | None = None,
    smoothing_seconds: float = SMOOTHING_SECONDS,
) -> dict[str, str]:
    """The stream around front end and ``model.h``: names of files and what is in them.

    output_scale: what one step of the network's int8 output is worth, as a logit. A window is
    decided every ``hop_seconds``, rounded to whole frames (None: as often as windows are cut for
    training); ``smoothing_seconds`` is the time constant of the mean (0: none). Both default to
    what ``compress.predict`` does.
    """
    return {
        **_copied("scene.h", "scene.c"),
        "scene_settings.h": scene_settings_header(frontend, hop_seconds),
        "scene_tables.h": scene_tables_header(
            frontend, output_scale, hop_seconds, smoothing_seconds
        ),
    }


def write_frontend(folder: Path, frontend: FrontEnd) -> list[str]:
    """Write :func:`frontend_texts` into ``folder``; gives the names of the files."""
    return _write(folder, frontend_texts(frontend))


def write_scene(
    folder: Path, frontend: FrontEnd, output_scale: float, **options: float
) -> list[str]:
    """Write :func:`scene_texts` into ``folder``; gives the names of the files."""
    return _write(folder, scene_texts(frontend, output_scale, **options))


def _copied(*names: str) -> dict[str, str]:
    return {name: (SOURCES / name).read_text(encoding="utf-8") for name in names}


def _write(folder: Path, texts: dict[str, str]) -> list[str]:
    for name, text in texts.items():
        write_text(folder / name, text)
    return list(texts)


def readme(frontend: FrontEnd, agreement: Mapping[str, Any], output_scale: float) -> str:
    """The section on sound of the export's README.md.

    agreement: of the compiled network with onnxruntime, from metrics.json. output_scale: the
    logit that one step of an output code is.
    """
    step = step_frames(frontend) * frontend.hop_seconds
    if frontend.reference == "fixed":
        reference = (
            f"0 dB is a mel power of {frontend.fixed_reference_db:g} dB, full scale being "
            "amplitude 1, as in training."
        )
    else:
        reference = """**This network was trained with a reference that no device knows beforehand:
0 dB is the loudest level of each window.** `scene.c` finds it when the window is complete and
subtracts it; until then levels wait in 32 bits, for three times the RAM of a window. Train with
`--reference fixed` for a front end whose levels are final frame by frame."""
    return f"""
## From sound

Add `frontend.c` and `scene.c` as well, and give samples as they come
({frontend.sample_rate_hz} Hz, 16 bits):

```c
#include "scene.h"

scene_reset();
while (count > 0) {{
    scene_decision found;
    size_t taken = scene_push(samples, count, &found); /* at most up to the next decision */
    if (found.ready) {{
        const char *name = scene_class_names[found.decision];
    }}
    samples += taken;
    count -= taken;
}}
```

A decision comes every {step:g} s, the first after {frontend.clip_seconds:g} s. It is that of the
exponential mean of probabilities (time constant {SMOOTHING_SECONDS:g} s), as `compress.predict`
computes it: within 0.00002 where both have the same output codes. The codes are those of the
integers in numpy, bit for bit; `compress.predict` has those of onnxruntime, which rounds otherwise.
On {agreement["windows"]:,} test windows it decided as this code on
{100 * agreement["top1"]:.2f} %, with logits at most {agreement["largest_logit_difference"]:.3g}
apart (one step of an output code is {output_scale:.3g}). To the float file that the int8 one was
made of, add what quantising changed.

Frames do not depend on how the samples are cut, and nothing is padded at the beginning. Only at a
file's end is `compress.predict` different: its last window ends with the file, and a file shorter
than a window gets zeros behind it. A stream has no end.

{reference}

`make test` also compares the front end with Python's on the sound in `frontend_golden.h`.
"""


# --- numbers -------------------------------------------------------------------------------------


def radices_of(points: int) -> list[int]:
    """Factors 4, 2, 3, 5 in the order of the stages; raises InputError for any other."""
    found, rest = [], points
    for radix in _RADICES:
        while rest % radix == 0:
            found.append(radix)
            rest //= radix
    if rest != 1 or not found:
        raise ValueError(points)
    return found


def check_fft_size(frontend: FrontEnd) -> list[int]:
    """The stages of the complex FFT of half the size; raises InputError for a size without."""
    size = frontend.fft_size
    if size % 2 == 0 and 4 <= size <= _LARGEST_FFT:
        try:
            return radices_of(size // 2)
        except ValueError:
            pass
    near = min(1 << (size - 1).bit_length(), _LARGEST_FFT)
    raise InputError(
        f"front end: no FFT of {size} points in C; the size must be even, have no prime factors "
        f"but 2, 3 and 5, and be at most {_LARGEST_FFT}, as {near} is"
    )


def load_order(radices: Sequence[int]) -> np.ndarray:
    """Which input of the FFT goes where, so that the stages find their parts side by side."""
    points = math.prod(radices)
    order = np.zeros(points, dtype=np.int64)
    rest, stride = np.arange(points), points
    for radix in radices:
        stride //= radix
        order += rest % radix * stride
        rest //= radix
    return order


def mel_table(frontend: FrontEnd) -> MelTable:
    """The filter bank in integers; a band without bins has a sum of 0."""
    edges = mel_edges_hz(frontend)
    bins = np.arange(frontend.fft_size // 2 + 1) * frontend.sample_rate_hz / frontend.fft_size
    # At the lowest edge itself all falls, to no band: the nearest share would let 2^-32 through.
    inside = np.flatnonzero((bins > edges[0]) & (bins <= edges[-1]))
    # A bin at the highest edge belongs to the last stretch, with a share of 0.
    stretch = np.minimum(np.searchsorted(edges, bins[inside], side="right") - 1, frontend.mels)
    share = (edges[stretch + 1] - bins[inside]) / (edges[stretch + 1] - edges[stretch])
    count = np.bincount(stretch, minlength=frontend.mels + 1)
    reference = frontend.fixed_reference_db if frontend.reference == "fixed" else 0.0
    decibels = 10.0 * np.log10(2.0 / (edges[2:] - edges[:-2])) - reference
    return MelTable(
        int(inside[0]) if len(inside) else 0,
        count,
        np.minimum(_fixed(share, 32), 2**32 - 1),
        _fixed(decibels, LEVEL_BITS),
        # Two parts of 47 bits give 2^63, and a band joins two stretches.
        math.ceil(math.log2(max(2 * int(count.max()), 1))),
    )


def sample_bits(frontend: FrontEnd) -> int:
    """Bits by which windowed samples are raised, so that no sum of them leaves the FFT."""
    largest = _FULL_SCALE * float(hann_window(frontend).sum())
    return math.floor(math.log2(_LARGEST_VALUE / largest) - 1e-6)


def exp_table(output_scale: float) -> np.ndarray:
    """exp(-steps * scale) for the 256 differences that two int8 codes can have, 65535 = 1."""
    return np.rint(_PROBABILITY_ONE * np.exp(-np.arange(256) * output_scale)).astype(np.int64)


def golden_samples(frontend: FrontEnd) -> np.ndarray:
    """A stretch of sound with all that is hard: a loud chirp, a click, faint noise, silence."""
    samples = frontend.window_samples + (_GOLDEN_FRAMES - 1) * frontend.hop_samples
    generator = np.random.default_rng(0)
    at = np.arange(samples) / samples
    chirp = 0.5 * np.sin(0.4 * np.pi * samples * at**2)
    noise = generator.normal(0, 1, samples)
    wave = np.where(at < 0.4, chirp, 0.002 * noise)
    wave[at > 0.85] = 0
    wave[int(0.6 * samples)] = 0.9
    return np.clip(np.rint(wave * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)


# --- C text --------------------------------------------------------------------------------------


def settings_header(frontend: FrontEnd) -> str:
    """frontend_settings.h: the sizes of one front end."""
    fixed = frontend.reference == "fixed"
    radices = check_fft_size(frontend)
    lowest = round(FLOOR_DB * 2**LEVEL_BITS) if fixed else _LOWEST
    lines = [
        "/* Sizes of the front end; written by compress.export. */",
        "",
        "#ifndef SCENE_FRONTEND_SETTINGS_H",
        "#define SCENE_FRONTEND_SETTINGS_H",
        "",
        _define("SCENE_SAMPLE_RATE_HZ", frontend.sample_rate_hz),
        _define("SCENE_WINDOW_SAMPLES", frontend.window_samples),
        _define("SCENE_HOP_SAMPLES", frontend.hop_samples),
        _define("SCENE_FFT_SIZE", frontend.fft_size),
        _define("SCENE_FRONTEND_MELS", frontend.mels),
        "",
        f"/* 0 dB is {_reference_in_words(frontend)}. */",
        _define("SCENE_REFERENCE_FIXED", int(fixed)),
        _define("SCENE_LOWEST_LEVEL_Q22", f"({lowest + 1} - 1)"),  # INT32_MIN is no literal
        _define("SCENE_FLOOR_Q8", f"({round(FLOOR_DB * CODES_PER_DB)})"),
        _define(
            "SCENE_QUIETEST_REFERENCE_Q22",
            f"({round(frontend.quietest_reference_db * 2**LEVEL_BITS)})",
        ),
        "",
        "/* Stages that the FFT needs. */",
        *(_define(f"SCENE_FFT_RADIX_{r}", int(r in radices)) for r in sorted(_RADICES)),
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _reference_in_words(frontend: FrontEnd) -> str:
    if frontend.reference == "fixed":
        return f"a mel power of {frontend.fixed_reference_db:g} dB, full scale being amplitude 1"
    return "the loudest level of the window that is decided"


def tables_header(frontend: FrontEnd) -> str:
    """frontend_tables.h: window, FFT, mel bands and log2 of one front end."""
    radices = check_fft_size(frontend)
    half = frontend.fft_size // 2
    window = hann_window(frontend)[: frontend.window_samples // 2 + 1]
    angles = 2 * np.pi * np.arange(half) / frontend.fft_size
    turns = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    mel = mel_table(frontend)
    # Two values beyond the last step, for the differences.
    decibels = 10.0 * np.log10(1.0 + np.arange(_LOG_STEPS + 2) / _LOG_STEPS)
    parts = [
        "/* Tables of the front end; written by compress.export, read by frontend.c alone. */\n\n"
        "/* Bits by which windowed samples are raised, such that no sum of them leaves 2^46. */\n"
        + _define("SCENE_SAMPLE_BITS", sample_bits(frontend))
        + "\n/* Bits by which a bin's power is lowered, so that no sum over a band overflows. */\n"
        + _define("SCENE_POWER_CUT", mel.power_cut)
        + "\n/* The first bin that belongs to a band. */\n"
        + _define("SCENE_FIRST_BIN", mel.first_bin)
        + "\n/* 10 log10(2) dB, in 2^-30. */\n"
        + _define("SCENE_OCTAVE_Q30", f"INT64_C({round(_OCTAVE_DB * 2**30)})"),
        "/* First half of the periodic Hann window; the other half mirrors it. */\n"
        + _array("int32_t", "window_q31", np.minimum(_fixed(window, 31), 2**31 - 1)),
        "/* Cosine and sine of 2 pi k / SCENE_FFT_SIZE, in 2^-30. */\n"
        + _array("int32_t", "twiddles", _fixed(turns, 30)),
        "/* Radix of each stage; which pair of samples is loaded where. */\n"
        + _array("uint8_t", "radices", radices),
        _array("uint16_t", "order", load_order(radices)),
        "/* Bins up to each band's centre, then up to the last edge; the share of each that falls\n"
        "   to the lower band; dB of one unit of a band. */\n"
        + _array("uint16_t", "mel_count", mel.count),
        _array("uint32_t", "mel_falling_q32", mel.falling_q32),
        _array("int32_t", "mel_offset_q22", mel.offset_q22),
        f"/* 10 log10(1 + i / {_LOG_STEPS}) in 2^-30. */\n"
        + _array("uint32_t", "decibels_q30", _fixed(decibels, 30)),
    ]
    return "\n\n".join(parts) + "\n"


def golden_header(frontend: FrontEnd) -> str:
    """frontend_golden.h: samples, and what compress.frontend makes of them."""
    samples = golden_samples(frontend)
    waveform = samples.astype(np.float32)[None] / _FULL_SCALE
    decibels = 10 * np.log10(np.maximum(mel_power(waveform, frontend)[0].T, 1e-20))
    if frontend.reference == "fixed":
        decibels = np.maximum(decibels - frontend.fixed_reference_db, FLOOR_DB)
        above = FLOOR_DB + 10.0
    else:
        above = float(decibels.max()) + FLOOR_DB + 10.0
    levels = _fixed(decibels, LEVEL_BITS)  # (frames, mels)
    parts = [
        "/* Sound, and what the workbench makes of it; written by compress.export. */\n\n"
        + _define("SCENE_GOLDEN_SAMPLES", len(samples))
        + "\n"
        + _define("SCENE_GOLDEN_FRAMES", len(levels))
        + "\n/* Levels in 2^-22 dB; those above this one (70 dB below 0 dB) are compared. */\n"
        + _define("SCENE_GOLDEN_ABOVE_Q22", f"({math.floor(above * 2**LEVEL_BITS)})"),
        _array("int16_t", "golden_samples", samples),
        _array("int32_t", "golden_levels", levels),
    ]
    return "\n\n".join(parts) + "\n"


def scene_settings_header(frontend: FrontEnd, hop_seconds: float | None) -> str:
    """scene_settings.h: when a window is decided."""
    step = step_frames(frontend, hop_seconds)
    lines = [
        "/* The stream of decisions; written by compress.export. */",
        "",
        "#ifndef SCENE_SETTINGS_H",
        "#define SCENE_SETTINGS_H",
        "",
        f"/* Frames from one window to the next: {step * frontend.hop_seconds:g} s. */",
        _define("SCENE_STEP_FRAMES", step),
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def scene_tables_header(
    frontend: FrontEnd, output_scale: float, hop_seconds: float | None, smoothing_seconds: float
) -> str:
    """scene_tables.h: softmax of the network's codes, and the mean over time."""
    apart = step_frames(frontend, hop_seconds) * frontend.hop_seconds
    present = -math.expm1(-apart / smoothing_seconds) if smoothing_seconds > 0 else 1.0
    past = f"exp(-{apart:g} s / {smoothing_seconds:g} s)" if smoothing_seconds > 0 else "nothing"
    parts = [
        "/* Softmax and smoothing; written by compress.export, read by scene.c alone. */\n\n"
        f"/* Weight of the present window, in 2^-31; the past weighs {past}. */\n"
        + _define("SCENE_PRESENT_Q31", f"INT64_C({round(present * 2**31)})"),
        f"/* exp(-d * {output_scale:.9g}): probability of a code d steps below the largest one,\n"
        "   relative to that one's; 65535 = 1. */\n"
        + _array("uint16_t", "exp_q16", exp_table(output_scale)),
    ]
    return "\n\n".join(parts) + "\n"


def _fixed(values: np.ndarray, bits: int) -> np.ndarray:
    return np.rint(values * 2.0**bits).astype(np.int64)


def _define(name: str, value: object) -> str:
    return f"#define {name} {value}"


def _array(kind: str, name: str, values: object) -> str:
    """A constant array of one or two dimensions, wrapped at 100 columns."""
    table = np.asarray(values).astype(np.int64)
    size = "".join(f"[{n}]" for n in table.shape)
    if table.ndim == 1:
        cells = [str(v) for v in table]
    else:
        cells = ["{" + ", ".join(str(v) for v in row) + "}" for row in table]
    lines, line = [], ""
    for cell in cells:
        piece = f"{cell}, "
        if line and len(line) + len(piece) > 95:
            lines.append(f"    {line.rstrip()}")
            line = ""
        line += piece
    lines.append(f"    {line.rstrip()}")
    body = "\n".join(lines).rstrip(",")
    return f"static const {kind} {name}{size} = {{\n{body}\n}};"
