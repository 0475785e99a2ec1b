"""The text of the C files of one network: constants for flash, one arena, one call per layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from compress.chip.arena import Plan
from compress.chip.fixed_point import Scaling
from compress.chip.layers import (
    GlobalMean,
    Layer,
    Lookup,
    Map,
    Network,
    Pool,
    Product,
    Sum,
    Weighted,
    Window,
)

HEADER, SOURCE, GOLDEN = "model.h", "model.c", "golden.h"
COPIED = ("kernels.h", "kernels.c", "host_test.c", "Makefile")  # the same in every export
_WIDTH = 96
_UPPER_BITS = 32  # the kernels shift the upper half of the product, so by 32 less


@dataclass(frozen=True)
class Golden:
    """Test windows and what the C code has to give for them. decibels_q8: (n, mels, frames) int16.
    logits: (n, classes) int8 codes. labels: (n,)."""

    decibels_q8: np.ndarray
    logits: np.ndarray
    labels: np.ndarray


def copied_file(name: str) -> str:
    """The text of a file that is the same in every export."""
    return (resources.files("compress.chip") / "sources" / name).read_text(encoding="utf-8")


def header(network: Network, plan: Plan, class_names: Sequence[str]) -> str:
    """model.h"""
    multiplier, shift = _scalar(network.interface.output_scale)
    return f"""/* A sound-scene classifier of {network.mels} mel bands x {network.frames} frames.
   int8, no heap, no float. Not re-entrant: all activations lie in one static arena. */

#ifndef SCENE_MODEL_H
#define SCENE_MODEL_H

#include <stddef.h>
#include <stdint.h>

#define SCENE_MELS {network.mels}
#define SCENE_FRAMES {network.frames}
#define SCENE_CLASSES {network.classes}
#define SCENE_INPUT_SIZE (SCENE_MELS * SCENE_FRAMES)
#define SCENE_ARENA_BYTES {plan.size} /* peak of all activations, the input included */
#define SCENE_LAYERS {len(network.layers)}

/* logit = (code - SCENE_OUTPUT_ZERO_POINT) * SCENE_OUTPUT_MULTIPLIER / 2^SCENE_OUTPUT_SHIFT */
#define SCENE_OUTPUT_ZERO_POINT ({network.interface.output_zero_point})
#define SCENE_OUTPUT_MULTIPLIER {multiplier}
#define SCENE_OUTPUT_SHIFT {shift}

extern const char *const scene_class_names[SCENE_CLASSES];
extern const char *const scene_layer_names[SCENE_LAYERS];
extern const uint32_t scene_layer_macs[SCENE_LAYERS]; /* multiply-accumulates */

/* One window in dB, Q8.8 (1/256 dB; -80 dB is -20480), mel-major (mels, frames), to the codes that
   the network takes: one multiplication per value. */
void scene_encode(const int16_t decibels_q8[SCENE_INPUT_SIZE], int8_t codes[SCENE_INPUT_SIZE]);

/* Where the codes have to lie before scene_run. A run overwrites them. */
int8_t *scene_input(void);

/* One layer, 0 to SCENE_LAYERS - 1 in order: for profilers. */
void scene_run_layer(size_t layer);

/* All layers. Gives SCENE_CLASSES codes, which hold until the next run. */
const int8_t *scene_run(void);

/* Encode, run, decide: the index of the largest code, the first one where several are equal. */
int scene_classify(const int16_t decibels_q8[SCENE_INPUT_SIZE], int8_t logits[SCENE_CLASSES]);

#endif
"""


def source(network: Network, plan: Plan, class_names: Sequence[str]) -> str:
    """model.c"""
    offsets = {name: plan.offsets[network.home[name]] for name in network.maps}
    encoding = network.encoding
    constants: list[str] = []
    calls: list[str] = []
    for number, layer in enumerate(network.layers):
        declared, call = _layer(number, layer, network.maps, offsets)
        constants += [f"/* {number}: {_comment(layer.name)} */", *declared, ""]
        calls += [f"    case {number}:", f"        {call}", "        break;"]
    parts = [
        '#include "model.h"',
        '#include "kernels.h"',
        "",
        "#include <string.h>",
        "",
        "#if defined(__GNUC__)",
        "#define SCENE_ALIGNED __attribute__((aligned(8)))",
        "#else",
        "#define SCENE_ALIGNED",
        "#endif",
        "",
        "static int8_t arena[SCENE_ARENA_BYTES] SCENE_ALIGNED;",
        "",
        _texts("const char *const scene_class_names[SCENE_CLASSES]", class_names),
        _texts("const char *const scene_layer_names[SCENE_LAYERS]",
               [layer.name for layer in network.layers]),
        _numbers("const uint32_t scene_layer_macs[SCENE_LAYERS]",
                 [layer.macs for layer in network.layers]),
        "",
        "/* input: dB to codes, by mel band */",
        _numbers("static const int32_t input_gains[SCENE_MELS]", encoding.gains),
        _numbers("static const int32_t input_offsets[SCENE_MELS]", encoding.offsets),
        "",
        *constants,
        "void scene_encode(const int16_t decibels_q8[SCENE_INPUT_SIZE], "
        "int8_t codes[SCENE_INPUT_SIZE])",
        "{",
        f"    scene_encode_bands(input_gains, input_offsets, {encoding.shift}, SCENE_MELS, "
        "SCENE_FRAMES,",
        "                       decibels_q8, codes);",
        "}",
        "",
        "int8_t *scene_input(void)",
        "{",
        f"    return arena + {offsets[network.input]};",
        "}",
        "",
        "void scene_run_layer(size_t layer)",
        "{",
        "    switch (layer) {",
        *calls,
        "    default:",
        "        break;",
        "    }",
        "}",
        "",
        "const int8_t *scene_run(void)",
        "{",
        "    for (size_t layer = 0; layer < SCENE_LAYERS; layer++) {",
        "        scene_run_layer(layer);",
        "    }",
        f"    return arena + {offsets[network.output]};",
        "}",
        "",
        "int scene_classify(const int16_t decibels_q8[SCENE_INPUT_SIZE], "
        "int8_t logits[SCENE_CLASSES])",
        "{",
        "    scene_encode(decibels_q8, scene_input());",
        "    memcpy(logits, scene_run(), SCENE_CLASSES);",
        "    int best = 0;",
        "    for (int i = 1; i < SCENE_CLASSES; i++) {",
        "        if (logits[i] > logits[best]) {",
        "            best = i;",
        "        }",
        "    }",
        "    return best;",
        "}",
        "",
    ]
    return "\n".join(parts)  # fmt: skip


def golden_header(golden: Golden) -> str:
    """golden.h: windows of the test split and the codes that the network has to give."""
    count = len(golden.labels)
    return "\n".join(
        [
            "/* Windows of the test split, the codes that the network gives for them, and their",
            "   labels. */",
            "",
            "#ifndef SCENE_GOLDEN_H",
            "#define SCENE_GOLDEN_H",
            "",
            '#include "model.h"',
            "",
            f"#define SCENE_GOLDEN {count}",
            "",
            _numbers("static const int16_t scene_golden_decibels[SCENE_GOLDEN * SCENE_INPUT_SIZE]",
                     golden.decibels_q8.reshape(-1)),
            _numbers("static const int8_t scene_golden_logits[SCENE_GOLDEN * SCENE_CLASSES]",
                     golden.logits.reshape(-1)),
            _numbers("static const uint8_t scene_golden_labels[SCENE_GOLDEN]", golden.labels),
            "",
            "#endif",
            "",
        ]
    )  # fmt: skip


def readme(
    network: Network, plan: Plan, class_names: Sequence[str], frontend: dict[str, Any] | None
) -> str:
    """README.md: how the files are built and called."""
    macs = sum(layer.macs for layer in network.layers)
    heard = (
        "The spectrograms of training came as spectrograms; the device has to compute the same."
        if frontend is None
        else "The front end of training: "
        + ", ".join(f"{key} {value}" for key, value in frontend.items())
        + "."
    )
    rows = "\n".join(
        f"| {number} | {layer.name} | {_kernel(layer)} | "
        f"{' x '.join(map(str, network.maps[layer.output].shape))} | {layer.macs:,} |"
        for number, layer in enumerate(network.layers)
    )
    return f"""# A sound-scene classifier in C

C99, 8-bit integers throughout: no heap, no float, no dependency but `stddef.h`, `stdint.h` and
`string.h`. Add `model.c` and `kernels.c` to a project; nothing else is needed.

```c
#include "model.h"

/* {network.mels} mel bands x {network.frames} frames in steps of 1/256 dB, band by band */
int16_t decibels_q8[SCENE_INPUT_SIZE];
int8_t logits[SCENE_CLASSES];

int scene = scene_classify(decibels_q8, logits);
const char *name = scene_class_names[scene];
```

Classes: {", ".join(class_names)}.

{heard}

- All activations lie in one static arena of {plan.size:,} bytes, the input among them. So the
  network is not re-entrant, and there is one of it in a program.
- Where codes are at hand already, write them to `scene_input()` and call `scene_run()`.
- `scene_run_layer(0)` to `scene_run_layer(SCENE_LAYERS - 1)` in order are the same, for profilers.
- Rounding is half up, once per value, of an exact 64-bit product. The portable kernels, those for
  the DSP extension (Cortex-M4, M7, M33) and those for Helium (M55, M85) give the same bits; the
  compiler's target chooses, for example `-mcpu=cortex-m4`.
- `>>` of a negative number must keep its sign, which the compiler checks.

`make test` runs the windows of `golden.h` on this machine and compares every output code,
`make sanitize` does so under the address and undefined-behaviour sanitizers. Those windows are data
of the test split: leave `golden.h` out where the data must not be passed on.

| | layer | kernel | result: rows x columns x channels | multiply-accumulates |
|---|---|---|---|---|
{rows}
| | | | all | {macs:,} |
"""


def _kernel(layer: Layer) -> str:
    if isinstance(layer, Weighted):
        return layer.kernel.replace("_", " ")
    if isinstance(layer, Pool):
        return "maximum" if layer.scaling is None else "mean"
    names = {Sum: "sum", Product: "product", GlobalMean: "global mean", Lookup: "table"}
    return names[type(layer)]


# --- layers --------------------------------------------------------------------------------------


def _layer(
    number: int, layer: Layer, maps: dict[str, Map], offsets: dict[str, int]
) -> tuple[list[str], str]:
    """(constants, the call) of one layer."""
    result = maps[layer.output]
    sources = [maps[name] for name in layer.inputs]
    places = [f"arena + {offsets[name]}" for name in (*layer.inputs, layer.output)]
    me = f"layer{number}"
    if isinstance(layer, Lookup):
        assert layer.table is not None
        table = _numbers(f"static const int8_t {me}_table[256]", layer.table)
        return [table], f"scene_lookup({me}_table, {', '.join(places)}, {result.size});"
    if isinstance(layer, Sum):
        found = layer.scaling
        assert found is not None
        text = f"static const scene_sum_layer {me} = {{{found.multiplier_a}, " \
               f"{found.multiplier_b}, {found.constant}, {found.shift}}};"  # fmt: skip
        return [text], f"scene_sum(&{me}, {', '.join(places)}, {result.size});"
    if isinstance(layer, Weighted):
        return _weighted(me, layer, sources[0], result, places)
    scaling = layer.scaling if isinstance(layer, (Product, GlobalMean, Pool)) else None
    declared, scaled = _scaling(me, scaling, result)
    rows, columns, channels = sources[0].shape
    if isinstance(layer, Product):
        a, b = sources
        fields = [scaled, a.zero_point, b.zero_point, rows * columns,
                  b.shape[0] * b.shape[1], channels]  # fmt: skip
        kernel = "product"
    elif isinstance(layer, GlobalMean):
        fields = [scaled, sources[0].zero_point, rows * columns, channels]
        kernel = "global_mean"
    else:
        assert isinstance(layer, Pool) and layer.window is not None
        fields = [scaled, _braced(sources[0].shape), _braced(result.shape),
                  _window(layer.window), sources[0].zero_point,
                  int(layer.padding_counts)]  # fmt: skip
        kernel = "max_pool" if layer.scaling is None else "mean_pool"
    type_name = "pool" if isinstance(layer, Pool) else kernel
    declared.append(f"static const scene_{type_name}_layer {me} = {_braced(fields)};")
    return declared, f"scene_{kernel}(&{me}, {', '.join(places)});"


def _weighted(
    me: str, layer: Weighted, x: Map, y: Map, places: list[str]
) -> tuple[list[str], str]:
    assert layer.weights is not None and layer.biases is not None and layer.window is not None
    weights = layer.weights.reshape(-1)
    declared = [
        _numbers(f"static const int8_t {me}_weights[{weights.size}] SCENE_ALIGNED", weights),
        _numbers(f"static const int32_t {me}_biases[{layer.biases.size}]", layer.biases),
    ]
    more, scaled = _scaling(me, layer.scaling, y)
    fields: list[object] = [f"{me}_weights", f"{me}_biases", scaled]
    if layer.kernel == "pointwise":
        outputs = layer.biases.size
        inputs = weights.size // outputs
        fields += [x.size // inputs, inputs, outputs]
        type_name = "pointwise"
    else:
        fields += [_braced(x.shape), _braced(y.shape), _window(layer.window), x.zero_point]
        type_name = "convolution"
    declared += more
    declared.append(f"static const scene_{type_name}_layer {me} = {_braced(fields)};")
    return declared, f"scene_{layer.kernel}(&{me}, {', '.join(places)});"


def _scaling(me: str, scaling: Scaling | None, result: Map) -> tuple[list[str], str]:
    """(arrays, the initialiser of a scene_scaling)."""
    if scaling is None:
        return [], f"{{NULL, NULL, {result.zero_point}}}"
    multipliers, shifts = np.ravel(scaling.multipliers), np.ravel(scaling.shifts) - _UPPER_BITS
    return [
        _numbers(f"static const int32_t {me}_multipliers[{multipliers.size}]", multipliers),
        _numbers(f"static const int8_t {me}_shifts[{shifts.size}]", shifts),
    ], f"{{{me}_multipliers, {me}_shifts, {result.zero_point}}}"


def _window(window: Window) -> str:
    return _braced((*window.size, *window.strides, *window.pads))


# --- text ----------------------------------------------------------------------------------------


def _braced(values: Iterable[object]) -> str:
    return "{" + ", ".join(map(str, values)) + "}"


def _scalar(scale: float) -> tuple[int, int]:
    """A positive number as multiplier / 2^shift, the multiplier of 31 bits."""
    _, exponent = math.frexp(scale)
    shift = 31 - exponent
    return min(round(math.ldexp(scale, shift)), 2**31 - 1), shift


def _numbers(declaration: str, values: Iterable[object]) -> str:
    """An array, wrapped."""
    lines, line = [], "   "
    for value in values:
        word = f" {value},"
        if len(line) + len(word) > _WIDTH:
            lines.append(line)
            line = "   "
        line += word
    lines.append(line.rstrip(","))
    return f"{declaration} = {{\n" + "\n".join(lines) + "\n};"


def _texts(declaration: str, values: Iterable[str]) -> str:
    return f"{declaration} = {{\n" + ",\n".join(f"    {_quoted(v)}" for v in values) + "\n};"


def _quoted(text: str) -> str:
    """A C string of any text, as UTF-8; octal escapes end after three digits."""
    plain = set(range(32, 127)) - set(b'"\\?')
    return '"' + "".join(
        chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode("utf-8")
    ) + '"'  # fmt: skip


def _comment(text: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text).replace("*/", "* /")
