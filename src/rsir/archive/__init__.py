"""Archives: what is searched, and the stores that keep it."""

from rsir.archive.archive import Archive
from rsir.archive.encoder import Encoder
from rsir.archive.filters import Filter
from rsir.archive.hits import Hits
from rsir.archive.indexing import IndexReport, Skipped
from rsir.archive.query import ByFile, ById, ByWindow, Examples
from rsir.archive.summary import SourceSummary

__all__ = [
    "Archive",
    "ByFile",
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
