"""The size of a batch of records and vectors that an export, import or merge holds in memory."""

from rsir.ranking import metric_named

MAX_RECORDS = 10_000
MAX_BYTES = 32 << 20
"""A batch has at most `MAX_RECORDS` records and `MAX_BYTES` bytes of vectors. Our choice: a
GeoParquet row group of some ten megabytes is quick to write and to skip, and an interruption loses
at most one batch."""


def batch_size(metric: str, dimension: int) -> int:
    """The number of records in a batch, at least 1; see `rsir.ranking.metric_named`."""
    compared = metric_named(metric)
    vector_bytes = compared.width(dimension) * (4 if compared.kind == "float" else 1)
    return max(1, min(MAX_RECORDS, MAX_BYTES // vector_bytes))
