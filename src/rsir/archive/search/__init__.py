"""Search: from a query to its hits."""
