"""Archives: what is searched, and the stores that keep it."""

from rsir.archive.archive import Archive, Encoder, SourceSummary
from rsir.archive.filters import Filter
from rsir.archive.hits import Hits
from rsir.archive.indexing import IndexReport, Skipped
from rsir.archive.query import ById, ByWindow, Examples

__all__ = [
    "Archive",
    "ById",
    "ByWindow",
    "Encoder",
    "Examples",
    "Filter",
    "Hits",
    "IndexReport",
    "Skipped",
    "SourceSummary",
]
