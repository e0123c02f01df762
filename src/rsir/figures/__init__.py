"""The pictures of an evaluation, and one page with all of them; needs the extra 'figures'.

`write` does it all; the functions beside it draw one picture each, a `Picture` whose `figure` is
matplotlib's own. Nothing here touches pyplot's global state.
"""

from rsir.figures.confusion import confusion, confusion_matrix
from rsir.figures.curves import Curves, class_bars, hamming_radius, precision_recall, retrieved
from rsir.figures.embeddings import embedding_map
from rsir.figures.report import write
from rsir.figures.strips import Choice, HeatMap, chosen, overlay, strip
from rsir.figures.style import Picture

__all__ = [
    "Choice",
    "Curves",
    "HeatMap",
    "Picture",
    "chosen",
    "class_bars",
    "confusion",
    "confusion_matrix",
    "embedding_map",
    "hamming_radius",
    "overlay",
    "precision_recall",
    "retrieved",
    "strip",
    "write",
]
