"""Inputs and outputs of a file that takes and gives 8-bit codes.

    code = round(dB * gain_b + offset_b), saturated        b: mel band
           below the knee, where there is one: dB = knee there, + step_slope_b * (dB - knee)
    logit = (code - zero_point) * scale

The normalisation of the input is part of that line: the codes are those that the float file's first
QuantizeLinear would compute, so both files decide alike, and a front end in fixed point has one
multiplication per value to do. The numbers stand in the file's own metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from compress.errors import InputError

METADATA_KEY = "compress.int8_interface"
_LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}


@dataclass(frozen=True)
class Step:
    """Another line below ``knee_db``, down to ``floor_db``: the step from sound to silence.

    slope: change per dB, one number per mel band.
    """

    knee_db: float
    floor_db: float
    slope: tuple[float, ...]

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Step:
        slope = tuple(map(float, found["slope"]))
        return cls(float(found["knee_db"]), float(found["floor_db"]), slope)


@dataclass(frozen=True)
class Interface:
    """gain, offset: one number per mel band, or one for all. kind: uint8 or int8."""

    kind: str
    gain: tuple[float, ...]
    offset: tuple[float, ...]
    output_scale: float
    output_zero_point: int
    step: Step | None = None

    def encode(self, decibels: np.ndarray) -> np.ndarray:
        """(B, 1, mels, frames) dB -> codes of the same shape."""
        gain, offset = (np.asarray(v)[:, None] for v in (self.gain, self.offset))
        low, high = _LIMITS[self.kind]
        step = self.step
        if step is None:
            return np.clip(np.rint(decibels * gain + offset), low, high).astype(self.kind)
        codes = np.maximum(decibels, step.knee_db) * gain + offset
        below = np.clip(decibels, step.floor_db, step.knee_db) - step.knee_db
        codes = codes + below * np.asarray(step.slope)[:, None]
        return np.clip(np.rint(codes), low, high).astype(self.kind)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """(B, classes) codes -> logits float32."""
        steps = codes.astype(np.int32) - self.output_zero_point
        return steps.astype(np.float32) * np.float32(self.output_scale)

    def signed(self) -> Interface:
        """The same ends in int8 codes."""
        if self.kind == "int8":
            return self
        offset = tuple(value - 128 for value in self.offset)
        return replace(
            self, kind="int8", offset=offset, output_zero_point=self.output_zero_point - 128
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], source: Any) -> Interface | None:
        """What the file says of its ends; None where both are float. Raises InputError."""
        text = metadata.get(METADATA_KEY)
        if text is None:
            return None
        try:
            found = json.loads(text)
            if found["kind"] not in _LIMITS:
                raise ValueError(found["kind"])
            return cls(
                found["kind"],
                tuple(map(float, found["gain"])),
                tuple(map(float, found["offset"])),
                float(found["output_scale"]),
                int(found["output_zero_point"]),
                Step.from_dict(found["step"]) if found.get("step") else None,
            )
        except (KeyError, TypeError, ValueError, RecursionError):
            raise InputError(f"{source}: its metadata {METADATA_KEY} is damaged") from None
