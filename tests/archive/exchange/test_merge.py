"""Merging two archives, whatever records they share."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir.archive.exchange import batches
from rsir.archive.exchange.merge import merge
from rsir.errors import ArchiveError
from tests.support.archives import METRICS, chip, contents, in_memory, many, on_disk, vectors


class CutError(BaseException):  # as Ctrl-C
    pass


def merged(into, other):
    """The result that `merge` promises, by its rule."""
    left = {record.id: (record, vector) for record, vector in contents(into)}
    for record, vector in contents(other):
        if record.id not in left or record.mtime_ns > left[record.id][0].mtime_ns:
            left[record.id] = (record, vector)
    return [left[id] for id in sorted(left)]


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_merge_is_the_union_with_the_newer_record_of_an_id(metric, data):
    first, second = data.draw(many), data.draw(many)
    for record in data.draw(st.lists(st.sampled_from(first), max_size=3)) if first else []:
        newer = record.mtime_ns // 2 + data.draw(st.sampled_from([-1, 0, 1]))
        shared = data.draw(st.sampled_from([record, replace(record, mtime_ns=newer)]))
        second = [r for r in second if r.id != record.id] + [shared]
    into, other = in_memory(metric, first, 1), in_memory(metric, second, 2)
    wanted, before = merged(into, other), contents(other)
    report = merge(into, other)
    assert contents(into) == wanted
    assert contents(other) == before
    assert report.added == len(wanted) - len(first)
    assert report.added + report.replaced + report.unchanged + report.kept == len(second)
    again = merge(into, other)
    assert (again.added, again.replaced) == (0, 0)
    assert contents(into) == wanted


def test_each_outcome_is_counted(tmp_path):
    old, new = ([chip(n, mtime_ns=time) for n in range(4)] for time in (1, 2))
    into = on_disk(tmp_path / "into", "cosine", [old[0], new[1], old[2]], 1)
    other = on_disk(tmp_path / "other", "cosine", [old[0], old[1], new[2], old[3]], 2)
    version, seen = other.store.version, []
    report = merge(into, other, on_progress=lambda done, total: seen.append((done, total)))
    counted = (report.added, report.replaced, report.unchanged, report.kept)
    assert counted == (1, 1, 1, 1)
    assert report.to_dict()["added"] == 1
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert other.store.version == version
    assert [r.mtime_ns for r in into.records()] == [1, 2, 2, 1]
    mine, theirs = vectors("cosine", 3, 1), vectors("cosine", 4, 2)
    np.testing.assert_array_equal(
        into.vectors([r.id for r in into.records()]), [mine[0], mine[1], theirs[2], theirs[3]]
    )


def test_empty_archives_merge():
    some = [chip(n) for n in range(3)]
    for first, second in (([], some), (some, []), ([], [])):
        into = in_memory("hamming", first)
        merge(into, in_memory("hamming", second))
        assert [r.id for r in into.records()] == [r.id for r in first or second]


def test_an_archive_merged_into_itself_does_not_change(tmp_path):
    archive = on_disk(tmp_path / "a", "hamming", [chip(n) for n in range(5)])
    before = contents(archive)
    assert merge(archive, archive).unchanged == 5
    assert contents(archive) == before


@pytest.mark.slow
@pytest.mark.parametrize("committed", [0, 1, 2, 3])
def test_a_second_call_completes_an_interrupted_merge(tmp_path, monkeypatch, committed):
    monkeypatch.setattr(batches, "MAX_RECORDS", 3)
    into = on_disk(tmp_path / "into", "cosine", [chip(n, mtime_ns=n % 3) for n in range(8)], 1)
    other = on_disk(tmp_path / "other", "cosine", [chip(n, mtime_ns=1) for n in range(4, 15)], 2)
    wanted = merged(into, other)
    add, done = into.store.add, []

    def cut(records, rows):
        if len(done) == committed:
            raise CutError
        done.append(len(records))
        add(records, rows)

    monkeypatch.setattr(into.store, "add", cut)
    if committed < 3:
        with pytest.raises(CutError):
            merge(into, other)
    else:
        merge(into, other)
    monkeypatch.setattr(into.store, "add", add)
    merge(into, other)
    assert contents(into) == wanted


def test_archives_of_two_models_are_not_merged():
    first = in_memory("cosine", [chip(1)])
    with pytest.raises(ArchiveError, match="has the fingerprint external:another/cosine/13"):
        merge(first, in_memory("cosine", [chip(2)], name="another"))
    other = in_memory("euclidean", [chip(2)])
    other.gallery.fingerprint = first.fingerprint
    with pytest.raises(ArchiveError, match=r"has the metric euclidean, .* has cosine"):
        merge(first, other)
    assert len(first) == 1
