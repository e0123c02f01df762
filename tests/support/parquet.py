"""Parquet files of another program, and their import."""

import pyarrow as pa
import pyarrow.parquet as pq

from rsir.archive.exchange.imports import import_parquet
from tests.support.archives import in_memory, vectors


def table(count: int, **columns) -> pa.Table:
    """Rows "t0", "t1", … with embeddings; `columns` are added or replace, None removes."""
    rows = vectors("cosine", count)
    given = {"id": [f"t{n}" for n in range(count)], "embedding": list(rows)}
    return pa.table(
        {name: column for name, column in (given | columns).items() if column is not None}
    )


def imported(tmp_path, rows: pa.Table, columns=None, metric="cosine", **more):
    """Import `rows` into an empty archive; returns its records by id, and the report."""
    pq.write_table(rows, tmp_path / "theirs.parquet")
    archive = in_memory(metric, [])
    report = import_parquet(archive, tmp_path / "theirs.parquet", columns, **more)
    return {record.id: record for record in archive.records()}, report
