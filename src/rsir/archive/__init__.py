"""Archives of encoded images, with the queries and the hits of a search."""

from rsir.archive.archive import Archive
from rsir.archive.folder.encoder import ImageEncoder
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
    "Examples",
    "Filter",
    "Hits",
    "ImageEncoder",
    "IndexReport",
    "Skipped",
    "SourceSummary",
]
