"""Display names of measures."""

from __future__ import annotations

SHORT = {"map": "mAP", "wmap": "weighted mAP", "precision": "precision", "recall": "recall"}


def measure_name(key: str) -> str:
    """The display name of a measure's key.

    r_at_1 → R@1, map_at_20_found → mAP@20 (found), map_within_2 → mAP within 2.
    """
    kind, at, rest = key.partition("_at_")
    first, *words = kind.split("_")
    written = " ".join([SHORT.get(first, first.upper()), *words])
    depth, _, which = rest.partition("_")
    return written + (f"@{depth}" if at else "") + (f" ({which})" if which else "")
