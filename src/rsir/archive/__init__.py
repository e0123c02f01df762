"""Archives: what is searched, and the stores that keep it."""

from rsir.archive.archive import Archive, Encoder, IndexReport, Skipped
from rsir.archive.hits import Hits

__all__ = ["Archive", "Encoder", "Hits", "IndexReport", "Skipped"]
