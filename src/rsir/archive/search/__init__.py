"""Search an archive: from a query to its hits."""
