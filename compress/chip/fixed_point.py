"""The arithmetic of the C code, in numpy: it has to give the same bits.

    factor = multiplier / 2^shift           multiplier: 31 bits
    code   = zero point + floor(accumulator * multiplier / 2^shift + 1/2), saturated

One rounding, half up, of the exact 64-bit product. The kernels take its upper 32 bits, add a whole
number r that holds zero point and half, and shift once more. That is exact, since
``floor((floor(p / 2^32) + r) / 2^k)`` equals ``floor((p + r 2^32) / 2^(32 + k))``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.int8.interface import Interface
from compress.int8.reference import Arithmetic, Codes, patches_of

MOST_SHIFT = 54  # zero point and half have to fit 32 bits beside the upper half of the product
_LARGEST_FACTOR = 256.0  # from here on every accumulator but 0 saturates
_MULTIPLIER_BITS = 31
CODES_PER_DB = 256  # of the spectrograms that the device computes (Q8.8)


@dataclass(frozen=True)
class Scaling:
    """factors = multipliers / 2^shifts; int64 arrays of one shape."""

    multipliers: np.ndarray
    shifts: np.ndarray

    def apply(self, accumulators: np.ndarray) -> np.ndarray:
        """Accumulators of at most 31 bits -> codes before zero point and limits, int64."""
        return _shifted(accumulators * self.multipliers, self.shifts)


def scaling_of(factors: np.ndarray | np.floating) -> Scaling:
    """Positive factors in fixed point, to a relative error of 2^-31 where they are over 2^-24."""
    held = np.minimum(np.asarray(factors, dtype=np.float64), _LARGEST_FACTOR)
    _, exponents = np.frexp(held)  # held < 2^exponent
    shifts = np.minimum(_MULTIPLIER_BITS - exponents.astype(np.int64), MOST_SHIFT)
    multipliers = np.rint(np.ldexp(held, shifts)).astype(np.int64)
    over = multipliers == 1 << _MULTIPLIER_BITS
    return Scaling(np.where(over, multipliers >> 1, multipliers), shifts - over)


def requantise(accumulators: np.ndarray, factors: np.ndarray | np.floating) -> np.ndarray:
    """For ``Arithmetic``: int64 accumulators and factors (broadcastable)."""
    return scaling_of(factors).apply(accumulators)


def _shifted(product: np.ndarray, shifts: Any) -> np.ndarray:
    """floor(product / 2^shifts + 1/2)"""
    half = np.left_shift(np.int64(1), np.asarray(shifts, dtype=np.int64) - 1)
    return (product + half) >> shifts


# --- sum of two maps -----------------------------------------------------------------------------


@dataclass(frozen=True)
class SumScaling:
    """code = (a * multiplier_a + b * multiplier_b + constant) >> shift, all in 32 bits.

    ``constant`` holds the three zero points and the half that rounds.
    """

    multiplier_a: int
    multiplier_b: int
    constant: int
    shift: int


def sum_scaling(a: Codes, b: Codes, scale: float, zero_point: int) -> SumScaling:
    """The finest shift with which no intermediate number of the kernel leaves 32 bits."""
    ratios = [float(x.scale.reshape(())) / float(np.float32(scale)) for x in (a, b)]
    zeros = [int(x.zero_point.reshape(())) for x in (a, b)]
    for shift in range(MOST_SHIFT - 32, 0, -1):
        by_a, by_b = (round(ratio * 2**shift) for ratio in ratios)
        offset = zero_point * 2**shift + 2 ** (shift - 1)
        constant = offset - zeros[0] * by_a - zeros[1] * by_b
        # 255 bounds a centred code, 128 a plain one; the kernel adds a, then b, then the constant.
        if max(255 * (by_a + by_b) + abs(offset), 128 * (by_a + by_b), abs(constant)) < 2**31:
            return SumScaling(by_a, by_b, constant, shift)
    return SumScaling(0, 0, zero_point * 2 + 1, 1)


def _add(operands: list[Codes], scale: float, zero_point: int) -> np.ndarray:
    a, b = operands
    found = sum_scaling(a, b, scale, zero_point)
    total = a.values * found.multiplier_a + b.values * found.multiplier_b + found.constant
    return total >> found.shift


# --- mean under a window -------------------------------------------------------------------------


def mean_factors(scale_in: Any, counts: np.ndarray, scale: float) -> np.ndarray:
    """Factors from sums of ``counts`` codes to the mean in steps of ``scale``; count 0 gives 0."""
    ratio = np.float32(scale_in) / np.float32(scale)
    return np.where(counts > 0, ratio / np.maximum(counts, 1).astype(np.float32), np.float32(0))


def _mean_pool(x: Codes, found: dict[str, Any], scale: float) -> np.ndarray:
    kernel = found["kernel_shape"]
    sums = patches_of(x.centred, kernel, found, 0).sum(axis=(4, 5))
    ones = np.ones((1, 1, *x.values.shape[2:]), np.int64)
    fill = int(found.get("count_include_pad", 0))
    counts = patches_of(ones, kernel, found, fill).sum(axis=(4, 5))
    return requantise(sums, mean_factors(x.scale.reshape(()), counts, scale))


# --- input codes ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Encoding:
    """code = (floor(decibels_q8 * gain / 2^16) + offset) >> shift, per mel band, saturated.

    decibels_q8: dB in steps of 1/256, int16. ``offset`` holds the half that rounds.
    """

    gains: np.ndarray  # (mels,) int64, 32 bits
    offsets: np.ndarray  # (mels,) int64, 32 bits
    shift: int


def encoding_of(interface: Interface, mels: int) -> Encoding:
    """The finest shift with which no intermediate number of the kernel leaves 32 bits."""
    gain = np.broadcast_to(np.asarray(interface.gain), (mels,))
    offset = np.broadcast_to(np.asarray(interface.offset), (mels,))
    for shift in range(22, -1, -1):
        gains = np.rint(gain / CODES_PER_DB * 2.0 ** (16 + shift))
        offsets = np.rint(offset * 2.0**shift) + (1 << shift >> 1)
        largest = np.abs(gains) / 2 + np.abs(offsets) + 1  # |decibels_q8| is at most 2^15
        if max(np.abs(gains).max(), largest.max()) < 2**31:
            return Encoding(gains.astype(np.int64), offsets.astype(np.int64), shift)
    raise ValueError("gain or offset of the input does not fit 32 bits")


def encode_q8(encoding: Encoding, decibels_q8: np.ndarray) -> np.ndarray:
    """(..., mels, frames) int16 -> int8 codes of the same shape."""
    scaled = (decibels_q8.astype(np.int64) * encoding.gains[:, None]) >> 16
    codes = (scaled + encoding.offsets[:, None]) >> encoding.shift
    return np.clip(codes, -128, 127).astype(np.int8)


def _encode(interface: Interface, decibels: np.ndarray) -> np.ndarray:
    steps = np.clip(np.rint(decibels * CODES_PER_DB), -32768, 32767).astype(np.int16)
    return encode_q8(encoding_of(interface, decibels.shape[-2]), steps)


FIXED_POINT = Arithmetic(requantise, _add, _mean_pool, _encode)
