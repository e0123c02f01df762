"""Whole tables on few images: what is trained, measured, resumed and reported as missing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import rsir
from rsir.data import folder, splits
from rsir.errors import UsageError
from rsir.evaluation.evaluate import evaluate
from rsir.models.adapt import adapt_to
from rsir.reproduce import runs
from rsir.reproduce.conditions import Conditions
from rsir.reproduce.image_sets import quick_subset
from rsir.reproduce.runs import reproduce
from rsir.reproduce.side_by_side import EXTRA_MEASURES, QUICK_WARNING, Comparison
from rsir.reproduce.table import PaperTable, parse
from tests.support.reproduced import (
    COMMON,
    HEAD,
    UCM,
    UNSEEN,
    ours,
    run_folder,
)


def test_the_numbers_are_those_of_the_saved_models(
    whole: Comparison, root: Path, out: Path
) -> None:
    found = ours(whole)
    model = run_folder(out, "quick-pooled-ucm-seed3-")
    images = root / "UCMerced_LandUse" / "Images"
    split = splits.read(model / "split.csv")
    assert sorted({Path(row.path).parent.name for row in split.rows}) == sorted(UCM)
    assert len(split) == 4 * 12
    test, train = split.labelled(images, "test"), split.labelled(images, "train")
    assert len(test) == 24
    encoder = rsir.load(model)
    report = evaluate(encoder, test)
    # The second of two seeds; percent and share.
    assert found["plain", "mAP"][1] == pytest.approx(100 * report.metrics["map"])
    assert found["plain", "R@1"][1] == pytest.approx(report.metrics["r_at_1"])
    assert found["plain", "river"][1] == pytest.approx(100 * report.per_class["river"]["map"])
    against = evaluate(encoder, test, train)
    assert found["plain", "gallery"][1] == pytest.approx(100 * against.metrics["map"])
    assert against.metrics["map"] != report.metrics["map"]
    centred = evaluate(encoder, test, ranking="ncc").metrics["map"]
    assert found["NCC", "mAP"][1] == pytest.approx(100 * centred)
    assert centred != pytest.approx(report.metrics["map"])
    dah = rsir.load(run_folder(out, "quick-dah-ucm-seed0-"))
    test = splits.read(dah.folder / "split.csv").labelled(images, "test")  # type: ignore[operator]
    for row, ranking in (("DAH", "adaptive-hamming"), ("DAH-D", "hamming")):
        expected = evaluate(dah, test, ranking=ranking).metrics
        assert found[row, "mAP"][0] == pytest.approx(100 * expected["map"])


def test_each_training_is_done_once(whole: Comparison, out: Path, lines: list[str]) -> None:
    folders = {path.name.rpartition("-")[0] for path in (out / "runs").iterdir() if path.is_dir()}
    models = [path.parent.name for path in (out / "runs").glob("*/model.json")]
    # All columns of a row share a run, and so do rows that differ in ranking only. The failed
    # training left no model.
    assert sorted(name.rpartition("-")[0] for name in models) == [
        f"quick-{which}-seed{seed}"
        for which in ("dah-ucm", "pooled-dlrsd", "pooled-ucm")
        for seed in (0, 3)
    ]
    assert folders == {name.rpartition("-")[0] for name in models}
    epochs = [line for line in lines if "epoch 1/1" in line]
    assert len(epochs) == len(models)
    assert epochs[0].startswith("plain · mAP · seed 0 · epoch 1/1")
    cells = ours(whole)
    numbers = [line for line in lines if line.startswith("DAH-D · mAP · seed 3: ")]
    assert numbers == [f"DAH-D · mAP · seed 3: {cells['DAH-D', 'mAP'][1]:.4g} percent"]
    result = json.loads(next((out / "runs").glob("quick-dah-ucm-seed3-*.hamming.json")).read_text())
    assert result["ranking"] == "hamming"
    assert result["trained"]["rsir"] == result["evaluated"]["rsir"] == rsir.__version__
    assert result["model"]["training"]["settings"]["seed"] == 3


def test_also_measured_is_every_evaluation(whole: Comparison, root: Path, out: Path) -> None:
    # The plain row has two evaluations on UC Merced, and a third with its labels.
    requested = dict.fromkeys((extra.row, extra.searched) for extra in whole.extra)
    assert [evaluation for row, evaluation in requested if row == "plain"] == [
        "ucm, 0.5 trained on, leave-one-out",
        "ucm, 0.5 trained on, query-gallery",
        "dlrsd labels, 0.5 trained on, leave-one-out",
    ]
    assert [row for row, _ in requested if row != "plain"] == ["NCC", "DAH", "DAH-D"]
    reports = []
    for seed in (0, 3):
        model = run_folder(out, f"quick-pooled-ucm-seed{seed}-")
        split = splits.read(model / "split.csv")
        test = split.labelled(root / "UCMerced_LandUse" / "Images", "test")
        reports.append(evaluate(rsir.load(model), test).metrics)
    found = {
        extra.measure: extra.ours
        for extra in whole.extra
        if (extra.row, extra.searched) in [*requested][:1]
    }
    assert tuple(found) == EXTRA_MEASURES
    for key, values in found.items():
        assert values == pytest.approx([metrics[key] for metrics in reports])
    means = " | ".join(
        f"{np.mean([metrics[key] for metrics in reports]):.4f}" for key in EXTRA_MEASURES
    )
    assert f"| plain | ucm, 0.5 trained on, leave-one-out | {means} |" in whole.markdown()


def test_everything_missing_is_reported(whole: Comparison) -> None:
    reasons = {(cell.row, cell.column): cell.reason for cell in whole.missing}
    assert reasons.keys() == {
        ("plain", "runway"),
        ("plain", "SIRI"),
        ("plain", "radius"),
        ("DAH", "SIRI"),
        ("DAH", "labels"),
        ("DAH-D", "minutes"),
        ("broken", "mAP"),
        ("HashNet", None),
    }
    assert reasons["plain", "runway"] == "no query has this class"
    assert "SIRI-WHU is not below this folder" in reasons["plain", "SIRI"]
    assert reasons["DAH", "SIRI"] == reasons["plain", "SIRI"]
    assert "rsir does not measure precision_within_2" in reasons["plain", "radius"]
    assert "dah learns one class per image" in reasons["DAH", "labels"]
    assert reasons["DAH-D", "minutes"] == "rsir has no such measure"
    assert "dimension must be a positive multiple of 2" in reasons["broken", "mAP"]
    assert reasons["HashNet", None] == "hashnet: not in rsir yet"
    # Every number of the paper has ours or a reason, and none has both.
    answered = set(ours(whole))
    given = {(cell.row, cell.column) for cell in whole.cells if cell.paper is not None}
    reported = {cell for cell in given if cell in reasons or (cell[0], None) in reasons}
    assert answered | reported == given
    assert not answered & reported


def test_the_conditions_describe_what_the_rows_share(whole: Comparison, out: Path) -> None:
    text = whole.markdown()
    assert f"**{QUICK_WARNING}**" in text
    conditions = dict(whole.conditions)
    for words in ("backbone test_resnet", "weights none", "32 × 32 pixels", "1 epoch,"):
        assert words in conditions["Shared by all rows"]
    assert "2 seeds" in conditions["Tuning budget"]
    split = splits.read(run_folder(out, "quick-pooled-ucm-seed3-") / "split.csv")
    assert conditions["Split of ucm, seed 3"].endswith(
        f"(24 train, 24 test images), hash {split.hash[:16]}"
    )
    assert "2 labels" in conditions["Split of dlrsd, seed 0"]
    assert {"Searched leave-one-out", "Searched query-gallery", "map", "r_at_k", "ties"} <= set(
        conditions
    )
    assert {"pooled is trained with", "dah is trained with", "Run on"} <= set(conditions)
    assert conditions["The paper's protocol"] == "Nothing is said."
    assert f"rsir {rsir.__version__}" in conditions["Run on"]


def test_finished_work_is_not_repeated(
    whole: Comparison, table: PaperTable, root: Path, out: Path, trained: list[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    again = reproduce(table, root, out, quick=True, seeds=(0, 3))
    assert again == whole
    # Only failed trainings are tried again.
    assert {name.rpartition("-")[0] for name in trained} == {"quick-dah-dlrsd-seed0"}
    after = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    assert after == before


@pytest.mark.parametrize("stop", ["epoch 1/1", "plain · R@1 · seed 0:", "DAH · mAP · seed 3 · "])
def test_an_interrupted_table_continues(
    whole: Comparison,
    table: PaperTable,
    root: Path,
    tmp_path: Path,
    trained: list[str],
    stop: str,
) -> None:
    def interrupt(line: str) -> None:
        if stop in line:
            raise KeyboardInterrupt

    methods = ["pooled", "dah"] if stop.startswith("DAH") else ["pooled"]
    small = dataclasses.replace(
        table,
        columns=table.columns[:2],
        rows=tuple(dataclasses.replace(row, values=row.values[:2]) for row in table.rows),
    )
    with pytest.raises(KeyboardInterrupt):
        reproduce(
            small, root, tmp_path, quick=True, methods=methods, seeds=(0, 3), on_line=interrupt
        )
    begun = list(trained)
    done = {path.parent.name for path in tmp_path.glob("runs/*/model.json")}
    resumed = reproduce(small, root, tmp_path, quick=True, methods=methods, seeds=(0, 3))
    wanted = {cell: values for cell, values in ours(whole).items() if cell in ours(resumed)}
    assert ours(resumed) == {cell: pytest.approx(v, rel=1e-5) for cell, v in wanted.items()}
    rows = {"plain", "NCC"} if len(methods) == 1 else {"plain", "NCC", "DAH", "DAH-D"}
    assert {row for row, _ in ours(resumed)} == rows
    # `train` is not called again for complete and measured runs.
    again = trained[len(begun) :]
    assert not done & set(again)
    assert len(done | set(again)) == 2 * len(methods)


def test_unseen_is_adapted_and_searched_whole(root: Path, tmp_path: Path) -> None:
    comparison = reproduce(parse("unseen", UNSEEN), root, tmp_path, quick=True)
    model = run_folder(tmp_path, "quick-jsrt-ucm-seed0-")
    split = splits.read(model / "split.csv")
    assert {row.part for row in split.rows} == {"train"}
    aid = quick_subset(folder.load(root / "AID"))
    adapted, _ = adapt_to(rsir.load(model), aid.files, tmp_path / "adapted")
    expected = 100 * evaluate(adapted, aid).metrics["map_at_10_found"]
    assert comparison.cells[0].ours == pytest.approx((expected,))
    unadapted = 100 * evaluate(rsir.load(model), aid).metrics["map_at_10_found"]
    assert comparison.cells[0].ours != pytest.approx((unadapted,))
    assert "Searched unseen, aid" in dict(comparison.conditions)


def test_costs_need_no_images(tmp_path: Path) -> None:
    text = f"""{HEAD}
column = [{{ name = "a query", unit = "ms", measure = "ms_per_query", data = "aid", train = 0.8 }}]
[[row]]
name = "DAH"
method = "dah"
values = [0.9]
"""
    (tmp_path / "data").mkdir()
    table = parse("cost", text)
    first = reproduce(table, tmp_path / "data", tmp_path, quick=True, seeds=(0, 1))
    (value,) = first.cells[0].ours
    assert 0 < value < 1000
    assert not first.missing
    assert "1 of 2" not in first.markdown()
    # Measured once: a second measurement would differ.
    assert reproduce(table, tmp_path / "data", tmp_path, quick=True, seeds=(0, 1)) == first
    (file,) = (tmp_path / "runs").iterdir()
    assert json.loads(file.read_text())["classes"] == 30


def test_conditions_of_a_full_run(root: Path, tmp_path: Path) -> None:
    text = f"""{HEAD}{COMMON}
column = [{{ name = "mAP", measure = "map" }}]
[[row]]
name = "plain"
method = "pooled"
values = [50]
[[row]]
name = "untrained"
method = "pooled"
backbone = "test_resnet"
settings = {{ epochs = 0, lr = 0.5 }}
values = [40]
"""
    table = parse("full", text)
    conditions = Conditions(
        "test_byobnet", "none", 32, epochs=1, batch_size=8, workers=0, settings={"lr": 1e-3}
    )
    comparison = reproduce(table, root, tmp_path, conditions=conditions)
    sentences = dict(comparison.conditions)
    assert sentences["Shared by all rows"].endswith(
        "batches of 8, lr 0.001; but untrained: backbone test_resnet; untrained: epochs 0; "
        "untrained: lr 0.5"
    )
    assert not comparison.missing
    assert QUICK_WARNING not in comparison.markdown()
    # All images of the set are used.
    assert "(28 train, 28 test images)" in sentences["Split of ucm, seed 0"]
    cards = [json.loads(p.read_text()) for p in sorted(tmp_path.glob("runs/*/model.json"))]
    assert sorted(card["backbone"] for card in cards) == ["test_byobnet", "test_resnet"]
    # Other conditions have runs of their own.
    longer = dataclasses.replace(conditions, epochs=2)
    reproduce(table, root, tmp_path, conditions=longer)
    assert len(list(tmp_path.glob("runs/*/model.json"))) == 3


def test_the_papers_backbone_is_the_default(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested: list[str] = []

    def refuse(name: str, **more: object) -> None:
        requested.append(name)
        raise UsageError("stop here")

    monkeypatch.setattr(runs, "Backbone", refuse)
    for backbone in ("resnet34", None):
        table = dataclasses.replace(parse("unseen", UNSEEN), backbone=backbone)
        with pytest.raises(UsageError, match="stop here"):
            reproduce(table, root, tmp_path)
    assert requested == ["resnet34", "resnet50"]


def test_methods_limit_the_rows(
    whole: Comparison, table: PaperTable, root: Path, out: Path
) -> None:
    some = reproduce(table, root, out, quick=True, seeds=(0, 3), methods=["dah"])
    assert {cell.row for cell in some.cells} == {"DAH", "DAH-D"}
    assert ours(some) == {cell: v for cell, v in ours(whole).items() if cell[0] in ("DAH", "DAH-D")}
    assert dict(some.conditions)["Left out"] == "plain, NCC, broken, HashNet: not requested"
