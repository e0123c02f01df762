"""The style of every figure, and saving it to files: the same input gives the same bytes.

The colours are distinct for the colour-blind. Lines also differ in dash and marker, so that they
are distinct in black and white.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from rsir.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette for the colour-blind, without yellow, which is invisible on white."""
WRONG, RIGHT, FAINT = "#D55E00", "#0072B2", "#767676"
"""Vermilion and blue of the same palette; a grey with a contrast of 4.5 on white (WCAG AA)."""
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
DPI = 150
"""Sharp at twice the size in a browser, and at full width in print; our choice."""

_SETTINGS: Mapping[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is on every machine
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "grid.color": "#dddddd",
    "text.parse_math": False,  # a class name may contain "$"
    "svg.hashsalt": "rsir",  # ids in an SVG are random without it
}


@dataclass(frozen=True, eq=False)
class Picture:
    """A drawn figure.

    name: file name without suffix. title: what the figure shows. alt: its main numbers, as
    alternative text. caption: how it was made and how to read it. vector: whether to write an SVG.
    """

    name: str
    title: str
    alt: str
    caption: str
    figure: Figure
    vector: bool = False

    def save(self, folder: Path) -> list[Path]:
        """Write NAME.png with DPI dots per inch, and NAME.svg if `vector`; returns the files."""
        files = [folder / f"{self.name}.png"]
        if self.vector:
            files.append(folder / f"{self.name}.svg")
        with _styled(), warnings.catch_warnings():
            # Characters that the font lacks are drawn as boxes; the page still has them as text.
            warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
            for file in files:
                # No metadata that changes with the date or the version of matplotlib.
                metadata: dict[str, Any] = {"Software": None}
                if file.suffix == ".svg":
                    metadata = {"Date": None, "Creator": None}
                self.figure.savefig(
                    file, dpi=DPI, metadata=metadata, bbox_inches="tight", pad_inches=0.08
                )
        return files


P = ParamSpec("P")


def drawn(draw: Callable[P, Picture]) -> Callable[P, Picture]:
    """A decorator that draws in this module's style.

    The function raises MissingExtraError if matplotlib is not installed.
    """

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Picture:
        with _styled():
            return draw(*args, **kwargs)

    return styled


@contextmanager
def _styled() -> Iterator[None]:
    needed()
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()  # not the user's matplotlibrc
        for key, value in _SETTINGS.items():
            mpl.rcParams[key] = value
        yield


def needed() -> None:
    """Raise MissingExtraError, which names the command, without matplotlib or scikit-learn."""
    try:
        import matplotlib  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("drawing figures", "figures") from error


def blank(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, whose subplots are laid out without overlaps."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def share_axes(axes: Axes, x: str, y: str) -> None:
    """Label the axes; y is a share, 0 … 1, with some margin for markers at its ends."""
    axes.set(xlabel=x, ylabel=y, ylim=(-0.02, 1.03))
    axes.set_yticks([i / 5 for i in range(6)])
    axes.grid(visible=True)
    axes.set_axisbelow(True)


def shown(name: str, longest: int = 40) -> str:
    """`name` as one printable line of at most `longest` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def percent(share: float) -> str:
    """'12 %', '0.4 %', with a non-breaking space."""
    digits = 1 if 0 < share < 0.01 else 0
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"
