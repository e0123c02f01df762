from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from rsir.cli.options import parse_assignments
from rsir.errors import UsageError
from tests.cli.running import TRAIN, Shell

COST = ["--backbone", "resnet10t", "--size", "32"]
DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_evaluate_prints_a_table_and_writes_json(
    shell: Shell, model: Path, coloured_classes: Path, tmp_path: Path
) -> None:
    done = shell(
        "evaluate", model, "--data", coloured_classes, "--out", tmp_path / "r.json", "--per-class"
    )
    assert done.status == 0
    assert "mAP" in done.out
    assert all(name in done.out for name in ("field", "lake", "roof", "sand", "all"))
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["data"]["part"] == "test"
    assert report["queries"] == 10  # a fifth of 48, rounded
    assert f"{report['metrics']['map']:.4f}" in done.out


def test_evaluate_takes_parts_and_protocols(
    shell: Shell, model: Path, coloured_classes: Path, tmp_path: Path
) -> None:
    def report(*options: str) -> dict[str, object]:
        file = tmp_path / "r.json"
        done = shell("evaluate", model, "--data", coloured_classes, "--out", file, *options)
        assert done.status == 0, done.err
        found: dict[str, object] = json.loads(file.read_text())
        return found

    everything = report("--part", "all")
    assert everything["queries"] == 48
    against = report("--protocol", "query-gallery")
    assert (against["queries"], against["gallery"]) == (10, 38)
    assert report("--ranking", "euclidean")["ranking"] == "euclidean"


def test_evaluate_says_what_the_model_was_trained_on(
    shell: Shell, model: Path, coloured_classes: Path, tmp_path: Path
) -> None:
    file = tmp_path / "r.json"
    evaluate = ("evaluate", model, "--data", coloured_classes, "--out", file)
    assert "leakage" not in shell(*evaluate).err
    assert json.loads(file.read_text())["leakage"]["queries_trained_on"] == []
    done = shell(*evaluate, "--part", "train", "--near-duplicates")
    assert "leakage: the model was trained on" in done.err
    assert "near-duplicate" in done.err
    found = json.loads(file.read_text())
    assert len(found["leakage"]["queries_trained_on"]) == found["queries"]
    assert found["near_duplicates"]["images"] == 48
    done = shell(*evaluate, "--part", "all", "--near-duplicates")
    assert (done.status, "split" in done.err) == (2, True)


def test_evaluate_shows_ties_and_drops_queries_without_relevant(
    shell: Shell, model: Path, coloured_classes: Path, tmp_path: Path
) -> None:
    for name in ("a/1.png", "a/2.png", "b/3.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(coloured_classes / "lake" / "lake00.png", tmp_path / "set" / name)
    file = tmp_path / "r.json"
    evaluate = ("evaluate", model, "--data", tmp_path / "set", "--part", "all", "--out", file)
    done = shell(*evaluate, "--ties")
    assert done.status == 0, done.err
    # Three equal images: the image of the same class comes first or second.
    assert "mAP, worst and best order of equal distances: 0.3333 … 0.6667" in done.out
    assert "1 queries have no relevant image and count 0" in done.err
    ties = json.loads(file.read_text())["ties"]
    assert (ties["worst"]["r_at_1"], ties["best"]["r_at_1"]) == (0, pytest.approx(2 / 3))
    done = shell(*evaluate, "--drop-empty")
    assert "1 queries have no relevant image and are left out" in done.err
    report = json.loads(file.read_text())
    assert (report["queries"], report["metrics"]["map"]) == (2, 0.75)


def test_two_models_are_compared_on_the_same_queries(
    shell: Shell, model: Path, coloured_classes: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    evaluate = ("evaluate", model, "--data", coloured_classes, "--part", "all")
    assert shell(*evaluate, "--per-query", first).status == 0
    assert shell(*evaluate, "--per-query", second, "--ranking", "euclidean").status == 0
    done = shell("compare", first, second, "--json")
    assert done.status == 0, done.err
    document = json.loads(done.out)
    assert (document["a"], document["b"]) == (str(first), str(second))
    found = document["measures"]
    assert list(found) == ["map", "anmrr", "r_at_1"]
    assert [found[name]["smaller_is_better"] for name in found] == [False, True, False]
    assert found["map"]["queries"] == 48
    assert 0 < found["map"]["p_value"] <= 1
    same = json.loads(shell("compare", first, first, "--measure", "p_at_5", "--json").out)[
        "measures"
    ]
    assert (same["p_at_5"]["difference"], same["p_at_5"]["p_value"]) == (0, 1)
    assert "P@5" in shell("compare", first, first, "--measure", "p_at_5").out
    done = shell("compare", first, second, "--measure", "speed")
    assert (done.status, "both have speed" in done.err) == (2, True)
    assert shell(*evaluate, "--per-query", second, "--drop-empty").status == 0
    lines = second.read_text().splitlines()
    second.write_text("\n".join(lines[:-1]) + "\n")
    done = shell("compare", first, second)
    assert (done.status, "same queries" in done.err) == (2, True)


def test_evaluate_draws_pictures_and_a_page(
    shell: Shell, model: Path, coloured_classes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "figures"
    done = shell("evaluate", model, "--data", coloured_classes, "--figures", out)
    assert done.status == 0, done.err
    assert f"look at {out / 'report.html'}" in done.err
    names = {file.name for file in out.iterdir()}
    assert {"report.html", "precision-recall.png", "classes.svg", "confusion.png"} <= names
    assert {"embeddings.png", "strip-best.png", "heat-best.png", "retrieved.png"} <= names
    page = (out / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert page.count("<img") == len([name for name in names if name.endswith(".png")])


def test_reproduce_compares_a_paper_with_our_results(
    shell: Shell, coloured_classes: Path, tmp_path: Path
) -> None:
    listed = shell("reproduce", "--list").out.splitlines()
    assert len(listed) == 21
    assert any(line.startswith("dah-table3") and "needs aid" in line for line in listed)
    assert shell("reproduce", "dah-table3").status == 2
    done = shell("reproduce", "dah-table99", "--data-root", tmp_path)
    assert (done.status, "dah-table6" in done.err) == (2, True)
    # No image set exists, and every row reports it.
    out = tmp_path / "out"
    done = shell("reproduce", "dah-table5", "--data-root", tmp_path, "--quick", "--out", out)
    assert (done.status, "nothing could be run" in done.err) == (1, True)
    assert "QUICK SMOKE VERSION" in done.out
    assert "## Not run" in done.out
    files = {file.name for file in (out / "dah-table5").iterdir()}
    assert files == {"table.md", "table.csv", "table.json", "table.png"}
    ask = ("reproduce", "dah-table5", "--data-root", tmp_path)
    for wrong, message in (
        (("--quick", "--epochs", "30"), "--epochs"),
        (("--quick", "--size", "224"), "--size"),
        (("--quick", "--weights", "none"), "--weights"),
        (("--quick", "--backbone", "resnet10t"), "--backbone"),
        (("--quick", "-s", "lr=0.1"), "-s"),
        (("-s", "image_size=64"), "--size"),
        (("-s", "seed=3"), "--seeds"),
        (("-s", "bogus=1"), "there is no bogus"),
        (("-s", "batch_size=many"), "batch_size='many': it must be a int"),
    ):
        done = shell(*ask, "--out", tmp_path / "none", *wrong)
        assert (done.status, message in done.err) == (2, True), done.err
    assert not (tmp_path / "none").exists()
    done = shell(*ask, "--quick", "--out", tmp_path / "out" / "dah-table5" / "table.md")
    assert (done.status, "cannot be written to" in done.err) == (2, True)


def test_reproduce_runs_the_rows_that_it_can(
    shell: Shell, coloured_classes: Path, tmp_path: Path
) -> None:
    images = tmp_path / "data" / "UCMerced_LandUse" / "Images"
    for name, source in (("forest", "field"), ("river", "lake"), ("beach", "sand")):
        shutil.copytree(coloured_classes / source, images / name)
    ask = ("reproduce", "dual-attention-table2", "--data-root", tmp_path / "data", "--quick")
    done = shell(*ask, "--out", tmp_path / "out", "--methods", " pooled, ")
    assert done.status == 2
    done = shell(*ask, "--out", tmp_path / "out", "--methods", " pooled,pooled ")
    assert done.status == 0, done.err
    assert "## Also measured" in done.out
    plain = json.loads((tmp_path / "out" / "dual-attention-table2" / "table.json").read_text())
    (row,) = {cell["row"] for cell in plain["cells"]}
    (cell,) = (cell for cell in plain["cells"] if cell["ours"])
    (measured,) = (entry for entry in plain["also_measured"] if entry["measure"] == "map")
    assert (measured["row"], measured["mean"]) == (row, pytest.approx(cell["ours"][0]))
    assert "is not below this folder" in done.out


@pytest.mark.slow
def test_cost_measures_time_and_storage(shell: Shell) -> None:
    options = (*COST, "-s", "bits=12", "--measure", "--gallery", 50, "-k", 5)
    done = shell("cost", "dah", *options, "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found["bytes_per_image"] == 2 + 4 * 21
    assert found["ms_per_query"]["median"] > 0
    assert found["parameters"] > 0
    assert "bytes per image, vector" in shell("cost", "dah", *options).out


@pytest.mark.training
def test_hash_codes_work_end_to_end(
    shell: Shell, coloured_classes: Path, query: Path, tmp_path: Path
) -> None:
    run, archive, report = tmp_path / "run", tmp_path / "archive", tmp_path / "r.json"
    train = ("train", "dah", "--data", coloured_classes, "--out", run, "--epochs", 1, *TRAIN)
    done = shell(*train, "--bits", 12, "-s", "validation=0.25")
    assert done.status == 0, done.err
    for ranking in ("adaptive-hamming", "hamming"):
        options = () if ranking == "adaptive-hamming" else ("--ranking", ranking)
        evaluate = ("evaluate", run, "--data", coloured_classes, "--part", "all")
        done = shell(*evaluate, "--out", report, *options)
        assert done.status == 0, done.err
        found = json.loads(report.read_text())
        assert (found["ranking"], found["model"]["dimension"]) == (ranking, 12)
        assert f"{found['metrics']['anmrr']:.4f}" in done.out
        assert f"@20 {found['metrics']['map_at_20_found']:.4f}" in done.out
    assert shell("index", archive, coloured_classes, "--model", run).status == 0
    done = shell("search", archive, query, "-k", 48, "--format", "json")
    assert done.status == 0, done.err
    hits = json.loads(done.out)
    assert len(hits) == 48
    itself = next(hit for hit in hits if hit["source"] == str(query))
    assert (itself["distance"], itself["score"]) == (0, 1)
    order = [(hit["distance"], hit["id"]) for hit in hits]
    assert order == sorted(order)
    about = json.loads(shell("info", archive, "--json").out)
    assert (about["metric"], about["dimension"]) == ("adaptive-hamming:4", 12)


@pytest.mark.slow
def test_lists(shell: Shell) -> None:
    listed = json.loads(shell("methods", "--json").out)
    assert {"pooled", "dual-attention"} <= {row["name"] for row in listed["methods"]}
    assert listed["trainer"]["batch_size"] == 80
    assert "-s margin=0.9" in shell("methods").out
    sets = json.loads(shell("datasets", "list", "--json").out)
    assert len(sets) == 10
    assert all(row["name"] in shell("datasets", "list").out for row in sets)
    assert shell("--version").out.strip()


@pytest.mark.slow
def test_a_real_set_is_checked(shell: Shell, data_root: Path, tmp_path: Path) -> None:
    assert shell("datasets", "check", "ucm", data_root).status == 0
    done = shell("datasets", "check", "ucm", tmp_path)
    assert done.status == 1
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("train", "nonsense", "--data", "D", "--out", "X"), 2, "dual-attention"),
        (("train", "pooled", "--data", "nowhere", "--out", "X", *TRAIN), 1, "no such folder"),
        (("train", "pooled", "--data", "D", "--out", "X", *TRAIN, "-s", "lr"), 2, "key=value"),
        (("train", "pooled", "--data", "D", "--out", "X", *TRAIN, "-s", "rl=1"), 2, "no rl"),
        (("train", "pooled", "--data", "D", "--out", "X", *TRAIN, "-s", "lr=a"), 2, "must be"),
        (("train", "pooled", "--data", "D", "--out", "D", *TRAIN), 2, "another folder"),
        (
            ("train", "pooled", "--data", "D", "--out", "X", "--backbone", "resnet1000"),
            2,
            "no backbone",
        ),
        (("train", "pooled", "--data", "D", "--out", "X", "--train-share", "2"), 2, "share"),
        (("evaluate", "nowhere", "--data", "D"), 1, "no model folder"),
        (("evaluate", "D", "--data", "D"), 1, "no rsir model"),
        (("evaluate", "M", "--data", "nowhere"), 1, "no such folder"),
        (("evaluate", "M", "--data", "D", "--ranking", "l7"), 2, "cosine"),
        (("evaluate", "M", "--data", "D", "--split", "nowhere.csv"), 1, "nowhere.csv"),
        (("evaluate", "M", "--data", "D", "--device", "abacus"), 2, "abacus"),
        (("train", "pooled", "--data", "D", "--out", "X", *TRAIN, "-s", "seed=-1"), 2, "seed"),
        (("train", "pooled", "--data", "D", "--out", "X", *TRAIN, "-s", "margin=9.0"), 2, "margin"),
        (
            ("evaluate", "M", "--data", "D", "--part", "all", "--protocol", "query-gallery"),
            2,
            "--part",
        ),
        (
            ("train", "pooled", "--data", "D", "--out", "X", "--bits", "8", *TRAIN),
            2,
            "--bits applies to methods that learn hash codes; pooled does not",
        ),
        (("evaluate", "M", "--data", "D", "--ranking", "hamming"), 2, "hash codes"),
        (("evaluate", "M", "--data", "D", "--ranking", "cosine:foo"), 2, "cosine:foo"),
        (("cost", "dah", *COST, "-s", "bits=abc"), 2, "bits='abc': it must be a int"),
        (("cost", "dah", *COST, "-s", "bits=1.5"), 2, "bits=1.5: it must be a int"),
        (("cost", "dah", *COST, "-s", "bits=true"), 2, "bits=True: it must be a int"),
        (("cost", "jsrt", *COST, "-s", "pca_length=x"), 2, "must be a int"),
        (("cost", "mlrsir-net", *COST, "-s", "levels=[1]"), 2, "must be a str"),
        (("cost", "dah", *COST, "-s", f"bits={10**15}"), 2, "does not fit into memory"),
        (("cost", "dah", *COST, "-s", f"bits={10**18}"), 2, "does not fit into memory"),
        (("cost", "dah", *COST, "-s", f"bits={10**30}"), 2, "does not fit into memory"),
        (("cost", "dah", *COST, "--classes", "0"), 2, "--classes"),
        (("cost", "dah", "--size", "0"), 2, "--size"),
        (("cost", "jsrt", *COST, "--classes", "1", "-s", "features=fc"), 2, "2 classes"),
        (("datasets", "check", "nonsense", "D"), 2, "nonsense"),
        (("nonsense",), 2, "nonsense"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_a_message_and_a_status(
    arguments: tuple[str, ...],
    status: int,
    message: str,
    shell: Shell,
    model: Path,
    coloured_classes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    values = {"D": coloured_classes, "M": model, "X": tmp_path / "x"}
    done = shell(*(values.get(argument, argument) for argument in arguments))
    assert (done.status, done.out) == (status, "")
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.fixture
def table(coloured_classes: Path, tmp_path: Path) -> Path:
    """A multi-label table: warm is roof and sand, wet is lake, plant is field and every third."""
    file = tmp_path / "labels.csv"
    rows = [
        f"{path.stem},{int(path.stem[0] in 'rs')},{int(path.stem[0] == 'l')},"
        f"{int(path.stem[0] == 'f' or number % 3 == 0)}"
        for number, path in enumerate(sorted(coloured_classes.glob("*/*.png")))
    ]
    file.write_text("image,warm,wet,plant\n" + "\n".join(rows) + "\n")
    return file


@pytest.mark.training
def test_a_multi_label_set_works_end_to_end(
    shell: Shell, table: Path, coloured_classes: Path, tmp_path: Path
) -> None:
    run, report = tmp_path / "run", tmp_path / "report.json"
    train = ("train", "dual-attention", "--data", coloured_classes, "--labels", table)
    assert shell(*train, "--out", run, *TRAIN, "--epochs", 1).status == 0
    assert shell("evaluate", run, "--data", coloured_classes, "--out", report).status == 0
    found = json.loads(report.read_text())
    assert set(found["per_class"]) == {"warm", "wet", "plant"}
    by_label = sum(values["queries"] for values in found["per_class"].values())
    assert by_label > found["queries"]  # an image counts under all of its labels


@pytest.mark.parametrize("method", ["dah", "jsrt", "eara"])
def test_a_multi_label_set_is_not_for_every_method(
    method: str, shell: Shell, table: Path, coloured_classes: Path, tmp_path: Path
) -> None:
    train = ("train", method, "--data", coloured_classes, "--labels", table)
    done = shell(*train, "--out", tmp_path / "run", *TRAIN, "--epochs", 0)
    message = f"{method} learns one class per image; this set has several labels"
    assert (done.status, message in done.err) == (2, True)
    assert not (tmp_path / "run").exists()


def test_labels_and_splits_do_not_contradict_each_other(
    shell: Shell, model: Path, table: Path, coloured_classes: Path, tmp_path: Path
) -> None:
    done = shell("evaluate", model, "--data", coloured_classes, "--labels", table)
    assert done.status == 2
    report = tmp_path / "r.json"
    arguments = ("--labels", table, "--part", "all", "--out", report)
    assert shell("evaluate", model, "--data", coloured_classes, *arguments).status == 0
    assert set(json.loads(report.read_text())["per_class"]) == {"warm", "wet", "plant"}
    for option in (("--labels", table), ("--train-share", 0.5), ("-s", "validation=0.2")):
        done = shell(
            "train", "pooled", "--data", coloured_classes, "--out", tmp_path / "x", *TRAIN,
            "--split", model / "split.csv", *option,
        )  # fmt: skip
        assert (done.status, "--split fixes" in done.err) == (2, True)


def test_a_split_is_checked_against_the_files(
    shell: Shell, model: Path, coloured_classes: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(coloured_classes, other)
    for file in other.glob("*/*.png"):
        Image.new("RGB", (32, 32), (len(file.name), 0, 9)).save(file)
    done = shell("evaluate", model, "--data", other)
    assert done.status == 1
    assert "changed" in done.err
    assert "--part all" in done.err
    assert shell("evaluate", model, "--data", other, "--part", "all").status == 0


def test_training_on_a_split_skips_what_cannot_be_read(
    shell: Shell, model: Path, coloured_classes: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    shutil.copytree(coloured_classes, images)
    split = (model / "split.csv").read_text().splitlines()
    bad = next(line.split(",")[0] for line in split if ",train," in line)
    (images / bad).write_bytes(b"nothing")
    done = shell(
        "train", "pooled", "--data", images, "--out", tmp_path / "x", *TRAIN, "--epochs", 1,
        "--split", model / "split.csv",
    )  # fmt: skip
    assert done.status == 0
    assert bad in done.err
    assert bad not in (tmp_path / "x" / "split.csv").read_text()


def test_an_unwritable_folder_gives_a_message(
    shell: Shell, model: Path, coloured_classes: Path, tmp_path: Path
) -> None:
    done = shell("evaluate", model, "--data", coloured_classes, "--out", tmp_path)
    assert done.status == 1
    assert "mAP" in done.out  # the work is not lost
    assert str(tmp_path) in done.err


def test_an_empty_class_and_a_class_of_one_are_named(shell: Shell, tmp_path: Path) -> None:
    for name, count in (("wood", 4), ("lake", 4), ("lone", 1)):
        (tmp_path / "d" / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (32, 32), (i, 0, 0)).save(tmp_path / "d" / name / f"{name}{i}.png")
    train = ("train", "pooled", "--data", tmp_path / "d", "--out", tmp_path / "x", *TRAIN)
    done = shell(*train)
    assert done.status == 1
    assert "lone" in done.err
    (tmp_path / "d" / "lone" / "lone0.png").unlink()
    done = shell(*train)
    assert done.status == 1
    assert "lone" in done.err
    assert "empty" in done.err


def test_values_of_assignments() -> None:
    found = parse_assignments(["a=1", "b=0.5", "c=true", "d=text", "e=x=y", 'f="1"'])
    assert found == {"a": 1, "b": 0.5, "c": True, "d": "text", "e": "x=y", "f": "1"}
    with pytest.raises(UsageError):
        parse_assignments(["=1"])


@pytest.mark.slow
def test_the_written_help_is_the_shells_own() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "typer", "rsir.cli", "utils", "docs", "--name", "rsir"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (DOCS / "cli.md").read_text("utf-8").strip() == done.stdout.strip(), "run: make docs"
