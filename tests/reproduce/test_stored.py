"""Stored results: damaged files, results of another rsir, files that cannot be written."""

from __future__ import annotations

import dataclasses
import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import rsir
from rsir.reproduce import experiment, provenance
from rsir.reproduce.runs import reproduce
from rsir.reproduce.side_by_side import Comparison, Missing
from rsir.reproduce.table import PaperTable, parse
from rsir.training.train import train
from tests.support.reproduced import (
    UNSEEN,
    ours,
    run_folder,
)


def test_a_damaged_result_is_reported(root: Path, tmp_path: Path) -> None:
    table = parse("unseen", UNSEEN)
    reproduce(table, root, tmp_path, quick=True)
    (file,) = (tmp_path / "runs").glob("*.leave-one-out.aid.json")
    file.write_text("{")
    damaged = reproduce(table, root, tmp_path, quick=True)
    assert not ours(damaged)
    assert "is damaged" in damaged.missing[0].reason
    file.unlink()
    assert ours(reproduce(table, root, tmp_path, quick=True))


@pytest.fixture
def stored_result(root: Path, tmp_path: Path) -> tuple[Path, Comparison]:
    """A stored result, and the comparison that it belongs to."""
    first = reproduce(parse("unseen", UNSEEN), root, tmp_path, quick=True)
    (file,) = (tmp_path / "runs").glob("*.leave-one-out.aid.json")
    return file, first


def test_incomplete_results_and_results_of_another_rsir(
    stored_result: tuple[Path, Comparison], root: Path, tmp_path: Path, trained: list[str]
) -> None:
    file, first = stored_result
    table, text = parse("unseen", UNSEEN), file.read_text()
    again: Callable[[], Comparison] = lambda: reproduce(table, root, tmp_path, quick=True)  # noqa: E731
    result = json.loads(text)
    no_origin = {key: value for key, value in result.items() if key != "evaluated"}
    results: list[object] = [
        {},
        [],
        no_origin,
        {**result, "metrics": {}},
        {**result, "trained": {}},
    ]
    for damaged in results:
        file.write_text(json.dumps(damaged))
        (missing,) = again().missing
        assert str(file) in missing.reason
        assert "is damaged" in missing.reason
        assert missing.reason.endswith("delete it")
    # Results of another version or commit are replaced; uncommitted changes do not count.
    made = result["evaluated"]
    wrong = {**result["metrics"], "map_at_10_found": 0.123}
    for then in ({"rsir": "0.0.1"}, {"commit": "0123abc"}):
        file.write_text(json.dumps({**result, "metrics": wrong, "evaluated": {**made, **then}}))
        assert ours(again()) == ours(first)
        assert json.loads(file.read_text())["metrics"] == result["metrics"]
    assert not trained
    commit = str(made["commit"]).removesuffix("-dirty")
    for same in (commit, f"{commit}-dirty"):
        if made["commit"] is not None:
            file.write_text(
                json.dumps({**result, "metrics": wrong, "evaluated": {**made, "commit": same}})
            )
            assert list(ours(again()).popitem()[1]) == pytest.approx([12.3])
    conditions = dict(again().conditions)
    assert conditions["Evaluated with"].startswith(f"rsir {rsir.__version__}, torch ")
    # Without its origin, it is unknown where the model was trained.
    file.with_name(f"{run_folder(tmp_path, 'quick-jsrt').name}.origin.json").unlink()
    file.unlink()
    last = again()
    assert ours(last) == ours(first)
    assert dict(last.conditions)["Run on"] == provenance.machine_text(None) == "not known"


@pytest.mark.parametrize(("number", "ends"), [(errno.EACCES, False), (errno.ENOSPC, True)])
def test_a_file_that_cannot_be_written_fails_one_row(
    table: PaperTable,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    ends: bool,
) -> None:
    real = train

    def failing(method: str, *rest: object, **more: object) -> Path:
        if method == "pooled":
            raise OSError(number, "it is so", "a/file")
        return real(method, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(experiment, "train", failing)
    small = dataclasses.replace(
        table,
        columns=table.columns[:1],
        rows=tuple(dataclasses.replace(table.rows[i], values=(50.0,)) for i in (0, 2)),
    )
    if ends:
        with pytest.raises(OSError, match="it is so"):
            reproduce(small, root, tmp_path, quick=True)
        return
    found = reproduce(small, root, tmp_path, quick=True)
    assert found.missing == (Missing("plain", "mAP", "a/file: it is so"),)
    assert {row for row, _ in ours(found)} == {"DAH"}
