"""Archives: what is searched, and the stores that keep it."""

from rsir.archive.archive import Archive, Encoder
from rsir.archive.hits import Hits
from rsir.archive.indexing import IndexReport, Skipped

__all__ = ["Archive", "Encoder", "Hits", "IndexReport", "Skipped"]
