"""Whole tables, tiny: what is trained, measured, taken up again, and said to be missing."""

from __future__ import annotations

import dataclasses
import errno
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rsir
from rsir.data import folder, splits
from rsir.data.synthetic import scenes
from rsir.errors import DataError, UsageError
from rsir.evaluation.evaluate import evaluate
from rsir.models.adapt import adapt_to
from rsir.reproduce import experiment, provenance, runs
from rsir.reproduce.conditions import Conditions
from rsir.reproduce.experiment import few
from rsir.reproduce.runs import reproduce
from rsir.reproduce.side_by_side import ALSO, QUICK, Comparison, Missing
from rsir.reproduce.table import PaperTable, parse
from rsir.training.train import train

UCM = {"beach": "water", "forest": "forest", "harbor": "industry", "river": "field"}
AID = {"Airport": "airport", "Farmland": "field", "Forest": "forest", "River": "road"}
"""Class folder → what is drawn in it."""
EACH = 14

HEAD = """
title = "A table of everything"
paper = "D"
source = "nobody, table 0"
protocol = "Nothing is\\nsaid."
"""
COMMON = """
common = { data = "ucm", train = 0.5, unit = "percent" }
"""
TABLE = f"""{HEAD}{COMMON}
column = [
  {{ name = "mAP", measure = "map" }},
  {{ name = "R@1", measure = "r_at_1", unit = "share" }},
  {{ name = "gallery", measure = "map", search = "query-gallery" }},
  {{ name = "river", measure = "map", class_name = "river" }},
  {{ name = "runway", measure = "map", class_name = "runway" }},
  {{ name = "SIRI", measure = "map", data = "siri-whu" }},
  {{ name = "radius", measure = "precision_within_2" }},
  {{ name = "labels", measure = "map", data = "dlrsd", labels = true }},
  {{ name = "minutes", unit = "minutes" }},
]
[[row]]
name = "plain"
method = "pooled"
values = [50, 0.5, 50, 50, 50, 50, 50, 50, nan]
[[row]]
name = "NCC"
method = "pooled"
settings = {{ ranking = "ncc" }}
values = [50, nan, nan, nan, nan, nan, nan, nan, nan]
[[row]]
name = "DAH"
method = "dah"
settings = {{ bits = 8 }}
values = [50, nan, nan, nan, nan, 50, 50, 50, nan]
[[row]]
name = "DAH-D"
method = "dah"
settings = {{ bits = 8, ranking = "hamming" }}
values = [50, nan, nan, nan, nan, nan, nan, nan, 3]
[[row]]
name = "broken"
method = "eara"
settings = {{ dimension = 7 }}
values = [50, nan, nan, nan, nan, nan, nan, nan, nan]
[[row]]
name = "HashNet"
absent = "hashnet: not in rsir yet"
values = [50, nan, nan, nan, nan, nan, nan, nan, nan]
"""
UNSEEN = f"""{HEAD}
common = {{ measure = "map_at_10_found", data = "ucm", unseen = "aid", unit = "percent" }}
column = [{{ name = "AID" }}]
[[row]]
name = "JSRT"
method = "jsrt"
values = [90]
"""


def drawn(root: Path, classes: dict[str, str]) -> None:
    for name, land_use in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(EACH):
            pixels = scenes.draw(land_use, size=32, seed=i)  # type: ignore[arg-type]
            Image.fromarray(pixels.transpose(1, 2, 0)).save(root / name / f"{name}{i:02d}.png")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """UC Merced with its labels, and AID, as they are unpacked; of some classes a few scenes."""
    place = tmp_path_factory.mktemp("data")
    drawn(place / "UCMerced_LandUse" / "Images", UCM)
    drawn(place / "AID", AID)
    lines = ["IMAGE\ttrees\twater\tcars"]
    for number, name in enumerate(UCM):
        for i in range(EACH):
            lines.append(
                f"{name}{i:02d}\t{number % 2}\t{(number + i) % 2}\t{int(i == number == 0)}"
            )
    table = place / "UCMerced_LandUse" / "LandUse_Multilabeled.txt"
    table.write_text("\n".join(lines) + "\n")
    return place


@pytest.fixture(scope="module")
def table() -> PaperTable:
    return parse("everything", TABLE)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def whole(table: PaperTable, root: Path, out: Path, lines: list[str]) -> Comparison:
    return reproduce(table, root, out, quick=True, seeds=(0, 3), on_line=lines.append)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs that are trained, or looked at by the trainer."""
    calls: list[str] = []
    real = train

    def counting(method: str, split: object, place: object, run: Path, **more: object) -> Path:
        calls.append(run.name)
        return real(method, split, place, run, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(experiment, "train", counting)
    return calls


def ours(comparison: Comparison) -> dict[tuple[str, str], tuple[float, ...]]:
    return {(cell.row, cell.column): cell.ours for cell in comparison.cells if cell.ours}


def run_folder(out: Path, start: str) -> Path:
    (found,) = (path for path in (out / "runs").glob(f"{start}*") if path.is_dir())
    return found


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
    # One run for all columns of a row, and for rows that are only ranked otherwise; the one that
    # failed left no model.
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
    # The columns of the plain row ask two things of UC Merced, and a third of its labels.
    asked = dict.fromkeys((one.row, one.question) for one in whole.also)
    assert [question for row, question in asked if row == "plain"] == [
        "ucm, 0.5 trained on, leave-one-out",
        "ucm, 0.5 trained on, query-gallery",
        "dlrsd labels, 0.5 trained on, leave-one-out",
    ]
    assert [row for row, _ in asked if row != "plain"] == ["NCC", "DAH", "DAH-D"]
    reports = []
    for seed in (0, 3):
        model = run_folder(out, f"quick-pooled-ucm-seed{seed}-")
        split = splits.read(model / "split.csv")
        test = split.labelled(root / "UCMerced_LandUse" / "Images", "test")
        reports.append(evaluate(rsir.load(model), test).metrics)
    found = {one.measure: one.ours for one in whole.also if (one.row, one.question) in [*asked][:1]}
    assert tuple(found) == ALSO
    for key, values in found.items():
        assert values == pytest.approx([metrics[key] for metrics in reports])
    means = " | ".join(f"{np.mean([metrics[key] for metrics in reports]):.4f}" for key in ALSO)
    assert f"| plain | ucm, 0.5 trained on, leave-one-out | {means} |" in whole.markdown()


def test_all_that_is_missing_is_said(whole: Comparison) -> None:
    reasons = {(one.row, one.column): one.reason for one in whole.missing}
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
    assert reasons["plain", "runway"] == "no query is of this class"
    assert "SIRI-WHU is not below this folder" in reasons["plain", "SIRI"]
    assert reasons["DAH", "SIRI"] == reasons["plain", "SIRI"]
    assert "rsir does not measure precision_within_2" in reasons["plain", "radius"]
    assert "dah learns one class per image" in reasons["DAH", "labels"]
    assert reasons["DAH-D", "minutes"] == "rsir has no such measure"
    assert "dimension must be a positive multiple of 2" in reasons["broken", "mAP"]
    assert reasons["HashNet", None] == "hashnet: not in rsir yet"
    # Every number of the paper is answered or accounted for, and nothing is both.
    answered = set(ours(whole))
    given = {(cell.row, cell.column) for cell in whole.cells if cell.paper is not None}
    said = {place for place in given if place in reasons or (place[0], None) in reasons}
    assert answered | said == given
    assert not answered & said


def test_the_conditions_say_what_the_rows_share(whole: Comparison, out: Path) -> None:
    text = whole.markdown()
    assert f"**{QUICK}**" in text
    said = dict(whole.conditions)
    for words in ("backbone test_resnet", "weights none", "32 × 32 pixels", "1 epoch,"):
        assert words in said["Shared by all rows"]
    assert "2 seeds" in said["Tuning budget"]
    split = splits.read(run_folder(out, "quick-pooled-ucm-seed3-") / "split.csv")
    assert said["Split of ucm, seed 3"].endswith(
        f"(24 train, 24 test images), hash {split.hash[:16]}"
    )
    assert "2 labels" in said["Split of dlrsd, seed 0"]
    assert {"Searched leave-one-out", "Searched query-gallery", "map", "r_at_k", "ties"} <= set(
        said
    )
    assert {"pooled is trained with", "dah is trained with", "Run on"} <= set(said)
    assert said["The paper's protocol"] == "Nothing is said."
    assert f"rsir {rsir.__version__}" in said["Run on"]


def test_what_is_done_is_not_done_again(
    whole: Comparison, table: PaperTable, root: Path, out: Path, trained: list[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    again = reproduce(table, root, out, quick=True, seeds=(0, 3))
    assert again == whole
    # Only what has failed is tried again.
    assert {name.rpartition("-")[0] for name in trained} == {"quick-dah-dlrsd-seed0"}
    after = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    assert after == before


@pytest.mark.parametrize("stop", ["epoch 1/1", "plain · R@1 · seed 0:", "DAH · mAP · seed 3 · "])
def test_an_interrupted_table_goes_on(
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
    wanted = {place: values for place, values in ours(whole).items() if place in ours(resumed)}
    assert ours(resumed) == {place: pytest.approx(v, rel=1e-5) for place, v in wanted.items()}
    rows = {"plain", "NCC"} if len(methods) == 1 else {"plain", "NCC", "DAH", "DAH-D"}
    assert {row for row, _ in ours(resumed)} == rows
    # What was complete and measured was not even looked at by the trainer again.
    again = trained[len(begun) :]
    assert not done & set(again)
    assert len(done | set(again)) == 2 * len(methods)


def test_a_damaged_result_is_said(root: Path, tmp_path: Path) -> None:
    table = parse("unseen", UNSEEN)
    place = tmp_path / "runs"
    reproduce(table, root, tmp_path, quick=True)
    (file,) = place.glob("*.leave-one-out.aid.json")
    file.write_text("{")
    damaged = reproduce(table, root, tmp_path, quick=True)
    assert not ours(damaged)
    assert "is damaged" in damaged.missing[0].reason
    file.unlink()
    assert ours(reproduce(table, root, tmp_path, quick=True))


@pytest.fixture
def kept(root: Path, tmp_path: Path) -> tuple[Path, Comparison]:
    """A result that was kept, and the comparison that it was made for."""
    first = reproduce(parse("unseen", UNSEEN), root, tmp_path, quick=True)
    (file,) = (tmp_path / "runs").glob("*.leave-one-out.aid.json")
    return file, first


def test_results_that_are_not_whole_or_of_another_rsir(
    kept: tuple[Path, Comparison], root: Path, tmp_path: Path, trained: list[str]
) -> None:
    file, first = kept
    table, text = parse("unseen", UNSEEN), file.read_text()
    again: Callable[[], Comparison] = lambda: reproduce(table, root, tmp_path, quick=True)  # noqa: E731
    result = json.loads(text)
    no_origin = {key: value for key, value in result.items() if key != "evaluated"}
    wholly: list[object] = [{}, [], no_origin, {**result, "metrics": {}}, {**result, "trained": {}}]
    for damaged in wholly:
        file.write_text(json.dumps(damaged))
        (missing,) = again().missing
        assert str(file) in missing.reason
        assert "is damaged" in missing.reason
        assert missing.reason.endswith("delete it")
    # Another version or commit is evaluated again, its own changes are not.
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
    said = dict(again().conditions)
    assert said["Evaluated with"].startswith(f"rsir {rsir.__version__}, torch ")
    # Where the model was trained is not known any more.
    file.with_name(f"{run_folder(tmp_path, 'quick-jsrt').name}.origin.json").unlink()
    file.unlink()
    last = again()
    assert ours(last) == ours(first)
    assert dict(last.conditions)["Run on"] == provenance.machine(None) == "not known"


@pytest.mark.parametrize(("number", "ends"), [(errno.EACCES, False), (errno.ENOSPC, True)])
def test_a_file_that_cannot_be_written_is_one_rows(
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


def test_settings_that_not_all_rows_can_share(
    table: PaperTable, root: Path, tmp_path: Path
) -> None:
    for name, place in (
        ("image_size", "--size"),
        ("epochs", "--epochs"),
        ("backbone", "--backbone"),
        ("weights", "--weights"),
        ("seed", "--seeds"),
        ("ranking", "--ranking"),
        ("batch_size", "the field batch_size"),
        ("workers", "the field workers"),
    ):
        with pytest.raises(UsageError, match=place):
            Conditions(settings={name: 1})
    for values in ({"bogus": 1}, {"lr": "high"}, {"bits": "many"}):
        conditions = Conditions("test_resnet", "none", 32, settings=values)
        with pytest.raises(UsageError, match=next(iter(values))):
            reproduce(table, root, tmp_path, conditions=conditions)
    with pytest.raises(UsageError, match="leave out --quick"):
        reproduce(table, root, tmp_path, conditions=Conditions(), quick=True)
    assert not list(tmp_path.iterdir())
    # What one method alone has is no mistake.
    one = Conditions("nonsense", "none", 32, settings={"bits": 8})
    with pytest.raises(UsageError, match="nonsense"):
        reproduce(table, root, tmp_path, conditions=one)


def test_out_must_be_a_folder(table: PaperTable, root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="cannot be written to"):
            reproduce(table, root, out, quick=True)
    assert (tmp_path / "file").read_text() == "mine"


def test_unseen_is_adapted_and_searched_whole(root: Path, tmp_path: Path) -> None:
    comparison = reproduce(parse("unseen", UNSEEN), root, tmp_path, quick=True)
    model = run_folder(tmp_path, "quick-jsrt-ucm-seed0-")
    split = splits.read(model / "split.csv")
    assert {row.part for row in split.rows} == {"train"}
    aid = few(folder.load(root / "AID"))
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
    said = dict(comparison.conditions)
    assert said["Shared by all rows"].endswith(
        "batches of 8, lr 0.001; but untrained: backbone test_resnet; untrained: epochs 0; "
        "untrained: lr 0.5"
    )
    assert not comparison.missing
    assert QUICK not in comparison.markdown()
    # Nothing is left out of the set.
    assert "(28 train, 28 test images)" in said["Split of ucm, seed 0"]
    cards = [json.loads(p.read_text()) for p in sorted(tmp_path.glob("runs/*/model.json"))]
    assert sorted(card["backbone"] for card in cards) == ["test_byobnet", "test_resnet"]
    # Other conditions have runs of their own.
    longer = dataclasses.replace(conditions, epochs=2)
    reproduce(table, root, tmp_path, conditions=longer)
    assert len(list(tmp_path.glob("runs/*/model.json"))) == 3


def test_what_all_share_must_work(table: PaperTable, root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nonsense"):
        reproduce(table, root, tmp_path, conditions=Conditions("nonsense", "none", 32))


def test_the_papers_backbone_is_the_default(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(name: str, **more: object) -> None:
        asked.append(name)
        raise UsageError("stop here")

    monkeypatch.setattr(runs, "Backbone", refuse)
    for backbone in ("resnet34", None):
        table = dataclasses.replace(parse("unseen", UNSEEN), backbone=backbone)
        with pytest.raises(UsageError, match="stop here"):
            reproduce(table, root, tmp_path)
    assert asked == ["resnet34", "resnet50"]


def test_methods_limit_the_rows(
    whole: Comparison, table: PaperTable, root: Path, out: Path
) -> None:
    some = reproduce(table, root, out, quick=True, seeds=(0, 3), methods=["dah"])
    assert {cell.row for cell in some.cells} == {"DAH", "DAH-D"}
    assert ours(some) == {
        place: v for place, v in ours(whole).items() if place[0] in ("DAH", "DAH-D")
    }
    assert dict(some.conditions)["Left out"] == "plain, NCC, broken, HashNet: not requested"


@pytest.mark.parametrize("methods", [["dah", "nonsense"], ["jsrt"], []])
def test_unknown_methods(table: PaperTable, root: Path, out: Path, methods: list[str]) -> None:
    with pytest.raises(UsageError, match="its methods are: pooled, dah, eara"):
        reproduce(table, root, out, methods=methods, quick=True)


def test_other_mistakes(table: PaperTable, root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="seeds must be"):
        reproduce(table, root, tmp_path, seeds=())
    with pytest.raises(UsageError, match="seeds must be"):
        reproduce(table, root, tmp_path, seeds=(1, 1))
    with pytest.raises(DataError, match="no such folder"):
        reproduce(table, root / "gone", tmp_path)
    with pytest.raises(UsageError, match="there is no table 'nonsense'"):
        reproduce("nonsense", root, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_set_that_is_nowhere_is_no_error(table: PaperTable, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    comparison = reproduce(table, tmp_path / "data", tmp_path / "out", quick=True)
    assert not ours(comparison)
    assert {one.row for one in comparison.missing} == {row.name for row in table.rows}
    assert "## Not run" in comparison.markdown()


def test_labels_without_a_table(table: PaperTable, root: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "UCMerced_LandUse").mkdir(parents=True)
    images = tmp_path / "data" / "UCMerced_LandUse" / "Images"
    images.symlink_to(root / "UCMerced_LandUse" / "Images")
    comparison = reproduce(table, tmp_path / "data", tmp_path, quick=True, methods=["eara", "dah"])
    reasons = {m.reason for m in comparison.missing if m == Missing("DAH", "labels", m.reason)}
    assert "no table of labels for DLRSD" in reasons.pop()


def test_few_of_classes_and_of_labels(root: Path) -> None:
    images = folder.load(root / "AID")
    part = few(images)
    assert part.classes == images.classes[:4]
    assert part.counts.tolist() == [12] * 4
    place = root / "UCMerced_LandUse"
    labelled = folder.load(place, labels=place / "LandUse_Multilabeled.txt")
    part = few(labelled)
    # Cars are on one image only.
    assert labelled.classes == ("cars", "trees", "water")
    assert part.classes == ("trees", "water")
    assert 24 < len(part) <= 48
    assert part.targets.any(axis=1).all()
    before = {path: labelled.labels(i) for i, path in enumerate(labelled.paths)}
    for i, path in enumerate(part.paths):
        assert part.labels(i) == tuple(name for name in before[path] if name != "cars")
    one = images.subset(np.flatnonzero(images.targets == 0)[:3])
    assert len(few(one)) == 3
