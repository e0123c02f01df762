"""What measures are called where people read them."""

from __future__ import annotations

SHORT = {"map": "mAP", "wmap": "weighted mAP", "precision": "precision", "recall": "recall"}


def measure_name(key: str) -> str:
    """A measure as people write it: R@1, mAP@20 (found), mAP within 2.

    Of the keys r_at_1, map_at_20_found, map_within_2.
    """
    kind, at, rest = key.partition("_at_")
    first, *words = kind.split("_")
    written = " ".join([SHORT.get(first, first.upper()), *words])
    depth, _, which = rest.partition("_")
    return written + (f"@{depth}" if at else "") + (f" ({which})" if which else "")
