"""Convert the samples of a scene to 0..255, repeatably and in the same way for all its tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rsir.errors import UsageError

_FORMS = "auto, none, percentile:LOW,HIGH or range:LOW,HIGH (or LOW,HIGH of each band)"

# The default of GIS viewers (QGIS: 'cumulative count cut', 2 to 98 %).
_PERCENTILES = (2.0, 98.0)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A linear stretch to uint8; samples beyond its ends become 0 or 255.

    kind: "none": samples are 0..255 already. "range": `values` are the samples that become 0 and
    255, one pair for all bands or one for each. "percentile": `values` are two percentiles in
    0..100 of the scene's valid samples, band by band (see `for_samples`). "auto": none for 8-bit
    scenes, percentiles 2 and 98 for all others (our choice, as GIS viewers do).

    Sentinel-2 reflectances are often shown with range 0 to 3000, which scales all scenes alike;
    percentiles make all scenes equally bright.
    """

    kind: Literal["auto", "none", "percentile", "range"] = "auto"
    values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.values)):
            raise UsageError(f"stretch {self}: its numbers must be finite")
        pairs = list(zip(self.values[::2], self.values[1::2], strict=False))
        ends = len(self.values) % 2 == 0 and all(low < high for low, high in pairs)
        fits = {
            "auto": not self.values,
            "none": not self.values,
            "percentile": len(self.values) == 2 and ends and min(self.values, default=-1) >= 0
            and max(self.values) <= 100,
            "range": bool(pairs) and ends,
        }  # fmt: skip
        if not fits.get(self.kind, False):
            raise UsageError(f"stretch {self}: give {_FORMS}; LOW is below HIGH")

    @classmethod
    def parse(cls, text: str) -> Stretch:
        """Parse a stretch: "auto", "none", "percentile:2,98" or "range:0,3000".

        Errors: UsageError for any other text.
        """
        kind, _, numbers = text.partition(":")
        try:
            values = tuple(float(number) for number in numbers.split(",")) if numbers else ()
        except ValueError:
            raise UsageError(f"stretch '{text}': give {_FORMS}") from None
        return cls(kind, values)  # type: ignore[arg-type]  # checked there

    def __str__(self) -> str:
        """The text that `parse` reads back without loss."""
        numbers = ",".join(repr(value).removesuffix(".0") for value in self.values)
        return f"{self.kind}:{numbers}" if numbers else self.kind

    def needs_samples(self, dtype: np.dtype[Any]) -> bool:
        """Whether `for_samples` needs samples of a scene of this dtype."""
        return self.kind == "percentile" or (self.kind == "auto" and dtype != np.uint8)

    def for_samples(self, samples: Sequence[NDArray[Any]], dtype: np.dtype[Any]) -> Stretch:
        """The settled stretch: "none", or "range" with two numbers for each band.

        samples: valid finite samples of each band, 1-d, in the scene's `dtype`; their values
        matter only if `needs_samples`. Percentiles are those of `numpy.percentile`, linear between
        samples; a band with one value is stretched over one unit from that value, a band without
        samples over 0 to 1.

        Errors: UsageError for "none" with a scene that is not 8-bit, and for a range with neither
        one pair nor one for each band.
        """
        if self.kind == "none" or (self.kind == "auto" and dtype == np.uint8):
            if dtype != np.uint8:
                raise UsageError(
                    f"stretch none: the scene is {dtype}, not 8-bit; choose percentile:2,98 or "
                    "range:LOW,HIGH"
                )
            return Stretch("none")
        if self.kind == "range":
            if len(self.values) not in (2, 2 * len(samples)):
                raise UsageError(
                    f"stretch {self}: has {len(self.values) // 2} pairs for {len(samples)} bands; "
                    "give one pair, or one for each band"
                )
            return Stretch("range", self.values * (2 * len(samples) // len(self.values)))
        percentiles = self.values or _PERCENTILES
        ends: list[float] = []
        for band in samples:
            low, high = np.percentile(band, percentiles).tolist() if len(band) else (0.0, 0.0)
            ends += [low, high if high > low else low + 1]
        return Stretch("range", tuple(ends))

    def __call__(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        """The samples (C, H, W) as uint8, by a settled stretch; NaN and -inf become 0, inf 255.

        255 · (x − low) / (high − low), clipped to 0..255 and rounded to nearest, ties to even.
        """
        if self.kind == "none":
            return pixels.astype(np.uint8, copy=False)
        if self.kind != "range":
            raise UsageError(f"stretch {self}: its numbers are not settled yet; see for_samples")
        ends = np.array(self.values).reshape(-1, 2, 1, 1)
        exact = np.result_type(pixels.dtype, np.float32)  # float64 for 32-bit integers and above
        low, high = ends[:, 0].astype(exact), ends[:, 1].astype(exact)
        scaled = (pixels.astype(exact) - low) * (255 / (high - low)).astype(exact)
        np.nan_to_num(scaled, copy=False, nan=0, posinf=255, neginf=0)
        rounded: NDArray[np.uint8] = np.rint(scaled).clip(0, 255).astype(np.uint8)
        return rounded
