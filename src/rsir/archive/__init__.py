"""Archives: what is searched, and the stores that keep it."""

from rsir.archive.archive import Archive
from rsir.archive.folder.encoder import Encoder
from rsir.archive.indexing.run import IndexReport, Skipped
from rsir.archive.search.hits import Hits
from rsir.archive.search.query_vectors import ByFile, ById, ByWindow, Examples
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
