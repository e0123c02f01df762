"""Index sources: read them ahead, encode their tiles, commit the records; and prune records."""
