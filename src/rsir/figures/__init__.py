"""Figures of an evaluation, and one page with all of them; needs the extra 'figures'.

`write` draws everything; each of the other functions draws one `Picture`, whose `figure` is a
matplotlib Figure. pyplot's global state is not used.
"""

from rsir.figures.confusion import confusion, confusion_matrix
from rsir.figures.curves import CurveValues, class_bars, hamming_radius, precision_recall, retrieved
from rsir.figures.embeddings import embedding_map
from rsir.figures.report import write
from rsir.figures.strips import ChosenQuery, HeatMap, chosen_queries, overlay, strip
from rsir.figures.style import Picture

__all__ = [
    "ChosenQuery",
    "CurveValues",
    "HeatMap",
    "Picture",
    "chosen_queries",
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
