"""Archives of encoded images, and what a search of them takes and gives."""

from rsir.archive.archive import Archive
from rsir.archive.folder.encoder import Encoder
from rsir.archive.indexing.report import IndexReport, Skipped
from rsir.archive.search.hits import Hits
from rsir.archive.search.query import ByFile, ById, ByWindow, Examples
from rsir.store.filters.filter import Filter
from rsir.store.records.summary import SourceSummary

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
