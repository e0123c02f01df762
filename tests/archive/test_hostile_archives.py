"""No archive, model or Parquet file of a stranger crashes, hangs, or ends in a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rsir.archive import Archive
from rsir.archive.folder.external import ExternalEncoder
from rsir.data.transforms import InputSpec
from rsir.errors import ArchiveError
from rsir.models.model import build_model, fingerprint
from rsir.store.lance.rows import schema_of
from rsir.store.records.record import Record
from tests.support.archives import SQUARE
from tests.support.run_hostile import check_bounds, run_hostile

DEEP = "[" * 60_000 + "]" * 60_000
NESTED = '{"type":"GeometryCollection","geometries":[' * 20_000 + "]}" * 20_000
BAD_VALUES = [
    None,
    True,
    -1,
    0,
    10**12,
    1e308,
    "",
    "x",
    "../../../../etc",
    [],
    [None],
    {},
    {"a": 1},
]
D = 16


def rows(count: int = 400) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((count, D)).astype(np.float32)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of external embeddings, with an index for approximate search."""
    archive = Archive.create(
        tmp_path_factory.mktemp("good") / "archive", ExternalEncoder("a", "cosine", D)
    )
    records = [
        Record(f"r{n:03}", f"/in/{n}.png", "", footprint=SQUARE, properties={"n": n})
        for n in range(400)
    ]
    archive.store.add(records, rows())
    archive.search(rows()[0], 3, ranking="approximate")
    return archive.path


def check(found: dict[str, dict[str, Any]], *, fine: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    assert found
    for name, outcome in found.items():
        check_bounds(outcome)
        assert outcome["ends"][0] in ("fine", "refused"), outcome
        assert name not in fine or outcome["ends"][0] == "fine", outcome


def manifests(text: str, random: np.random.Generator) -> Iterator[str]:
    """Damaged manifests: cut, other types, deep, huge numbers."""
    document = json.loads(text)
    for key in document:
        yield json.dumps({name: value for name, value in document.items() if name != key})
        for number in random.choice(len(BAD_VALUES), 2, replace=False):
            yield json.dumps(document | {key: BAD_VALUES[number]})
        yield json.dumps(document | {key: 0}).replace(": 0", ": " + "9" * 5000, 1)
    for size in random.integers(0, len(text), 6):
        yield text[:size]
    yield from (
        DEEP,
        "[]",
        "null",
        "\x00",
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    )
    yield json.dumps(document)[:-1] + f', "more": {DEEP}}}'
    yield "NaN"


def copies(good: Path, folder: Path, count: int) -> Iterator[Path]:
    for number in range(count):
        yield Path(shutil.copytree(good, folder / f"{number:03}"))


@pytest.mark.slow
def test_damaged_manifests(good: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    paths = []
    for file in ("archive.json", "model/model.json"):
        texts = list(manifests((good / file).read_text(), random))
        (tmp_path / file.replace("/", "-")).mkdir()
        for path, text in zip(
            copies(good, tmp_path / file.replace("/", "-"), len(texts)), texts, strict=True
        ):
            (path / file).write_text(text)
            paths.append(path.rename(tmp_path / f"{file.replace('/', '-')}-{path.name}"))
    assert len(paths) > 60
    paths.append(Path(shutil.copytree(good, tmp_path / "good")))
    check(run_hostile("tests.support.read_archive", "archive", paths), fine={"good"})


@pytest.mark.slow
def test_damaged_tables_and_indexes(good: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    files = [file.relative_to(good) for file in sorted(good.rglob("*")) if file.is_file()]
    files = [file for file in files if file.suffix not in (".json",) or "manifest" in file.name]
    paths = []
    for number, path in enumerate(copies(good, tmp_path, 3 * len(files))):
        file = path / files[number % len(files)]
        data = bytearray(file.read_bytes())
        kind = (number // len(files)) % 3
        if kind == 0:
            del data[int(random.integers(0, len(data) + 1)) :]
        elif kind == 1:
            for at in random.integers(0, len(data), 8):
                data[int(at)] ^= 1 << int(random.integers(0, 8))
        else:
            at = int(random.integers(0, max(1, min(len(data), 200) - 8)))
            data[at : at + 8] = int(random.choice([2**63 - 1, 2**40, 2**32, 0])).to_bytes(
                8, "little"
            )
        file.write_bytes(bytes(data))
        paths.append(path)
    check(run_hostile("tests.support.read_archive", "archive", paths))


def foreign_tables() -> Iterator[tuple[str, pa.Table]]:
    """Tables that say they are a store of rsir, with values that rsir never writes."""
    about = {"format": "rsir-store/2", "metric": "cosine", "dimension": D, "id": ""}
    schema = schema_of("cosine", D, {b"rsir": json.dumps(about).encode()})

    def table(**changed: Any) -> pa.Table:
        columns: dict[str, Any] = {
            "id": ["a", "b"], "source": ["/a", "/b"], "content": ["", ""], "size": [0, 0],
            "mtime_ns": [0, 0], "footprint": [json.dumps(SQUARE)] * 2, "datetime": [None, None],
            "properties": ["{}", "{}"], "west": [7.0] * 2, "south": [50.0] * 2, "east": [8.0] * 2,
            "north": [51.5] * 2, "vector": list(rows(2)),
        }  # fmt: skip
        columns |= changed
        names = [name for name in schema.names if name in columns]
        arrays = [pa.array(columns[name], schema.field(name).type) for name in names]
        return pa.table(
            arrays, schema=pa.schema([schema.field(name) for name in names], schema.metadata)
        )

    yield "good", table()
    for name in ("properties", "footprint"):
        for number, text in enumerate(
            (DEEP, "", "[]", "null", "{", '{"a": NaN}', "9" * 5000, NESTED)
        ):
            yield f"{name}-{number}", table(**{name: [text, text]})
    yield "zero", table(vector=[np.zeros(D, np.float32)] * 2)
    yield "twice", table(id=["a", "a"])
    yield "bounds", table(west=[np.nan, np.inf], east=[-np.inf, 1e300])
    plain = table()
    for name in schema.names:
        yield f"without-{name}", plain.drop_columns([name])
    yield (
        "text-vector",
        plain.set_column(plain.column_names.index("vector"), "vector", pa.array(["x", "y"])),
    )
    for number, wrong in enumerate(
        ({"dimension": 10**12}, {"dimension": "16"}, {"metric": 3}, {"format": DEEP}, {"id": 3})
    ):
        metadata = {b"rsir": json.dumps(about | wrong).encode()}
        yield f"about-{number}", plain.replace_schema_metadata(metadata)
    yield "about-deep", plain.replace_schema_metadata({b"rsir": DEEP.encode()})


@pytest.mark.slow
def test_foreign_tables(good: Path, tmp_path: Path) -> None:
    paths = []
    for name, table in foreign_tables():
        path = Path(shutil.copytree(good, tmp_path / name))
        shutil.rmtree(path / "items.lance")
        shutil.rmtree(path / "items.index", ignore_errors=True)
        manifest = json.loads((path / "archive.json").read_text()) | {"identity": ""}
        (path / "archive.json").write_text(json.dumps(manifest))
        lancedb.connect(path).create_table("items", table)
        paths.append(path)
    assert len(paths) > 35
    check(run_hostile("tests.support.read_archive", "archive", paths), fine={"good"})


@pytest.mark.parametrize(
    "wrong", [{"dimension": str(D)}, {"dimension": D + 0.5}, {"metric": ["x"]}]
)
def test_a_description_of_wrong_types_is_refused(good: Path, tmp_path: Path, wrong: Any) -> None:
    path = Path(shutil.copytree(good, tmp_path / "copy"))
    table = lancedb.connect(path).open_table("items").to_arrow()
    about = json.loads(table.schema.metadata[b"rsir"]) | wrong
    shutil.rmtree(path / "items.lance")
    lancedb.connect(path).create_table(
        "items", table.replace_schema_metadata({b"rsir": json.dumps(about).encode()})
    )
    with pytest.raises(ArchiveError, match=r"restore (it|one of them) from a copy"):
        Archive.open(path).store.count()


@pytest.mark.slow
def test_damaged_models(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    spec = InputSpec(size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    model = build_model("pooled", backbone="resnet10t", spec=spec, classes=("a", "b"))
    good = model.save(tmp_path / "model")
    card = json.loads((good / "model.json").read_text())

    def signed(**changed: Any) -> str:
        """A card whose fingerprint fits, as an attacker would make it."""
        whole = card | changed
        names = ("method", "options", "backbone", "input", "classes", "weights_sha256")
        return json.dumps(whole | {"fingerprint": fingerprint({n: whole[n] for n in names})})

    texts = list(manifests(json.dumps(card), random))
    texts += [signed(backbone="vit_giant_patch14_224"), signed(classes=["x"] * 10**6)]
    texts += [
        signed(**{key: value})
        for key in ("method", "options", "backbone", "input", "classes")
        for value in (None, 3, "x", [], {}, [[1]], {"size": 10**9}, {"size": -1})
    ]
    texts += [signed(input=card["input"] | {"size": 10**9}), signed(options={"dimension": 10**12})]
    paths = [good]
    for number, text in enumerate(texts):
        path = Path(shutil.copytree(good, tmp_path / f"card-{number:03}"))
        (path / "model.json").write_text(text)
        paths.append(path)
    data = (good / "model.safetensors").read_bytes()
    for number in range(8):
        changed = bytearray(data)
        if number % 2:
            changed[:8] = int(random.choice([2**63, 2**40, 0, len(data)])).to_bytes(8, "little")
        else:
            del changed[int(random.integers(0, len(data))) :]
        path = Path(shutil.copytree(good, tmp_path / f"weights-{number}"))
        (path / "model.safetensors").write_bytes(bytes(changed))
        paths.append(path)
    check(run_hostile("tests.support.read_archive", "model", paths), fine={"model"})


def parquet_files() -> Iterator[tuple[str, bytes]]:
    """Parquet files with damage, and with columns of odd types."""
    random = np.random.default_rng(4)
    good = {"id": ["a", "b", "c"], "embedding": list(rows(3)), "datetime": ["2020", "x", None]}

    def written(columns: dict[str, Any], metadata: dict[str, str] | None = None) -> bytes:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), sink)
        return bytes(sink.getvalue())

    data = written(good)
    yield "good", data
    for number in range(60):
        changed = bytearray(data)
        if number % 3 == 0:
            del changed[int(random.integers(0, len(data))) :]
        elif number % 3 == 1:
            for at in random.integers(0, len(data), 6):
                changed[int(at)] ^= 1 << int(random.integers(0, 8))
        else:  # the footer's length and the footer
            at = len(data) - 8 - int(random.integers(0, 300))
            changed[at : at + 4] = int(random.choice([2**31 - 1, 0, 255])).to_bytes(4, "little")
        yield f"damaged-{number}", bytes(changed)
    odd: dict[str, Any] = {
        "lengths": pa.array([[1.0], [1.0, 2.0], []]),
        "none": pa.array([None, None, None], pa.list_(pa.float32())),
        "nan": pa.array([[np.nan] * 4, [np.inf] * 4, [0.0] * 4]),
        "nested": pa.array([[[1.0]], [[2.0]], [[3.0]]]),
        "words": pa.array(["a", "b", "c"]),
        "dictionary": pa.array(["a", "b", "a"]).dictionary_encode(),
        "wide": pa.array([[1.0] * 70_000] * 3),
        "booleans": pa.array([[True]] * 3),
        "empty": pa.array([], pa.list_(pa.float32())),
    }
    for name, column in odd.items():
        yield f"vector-{name}", written({"embedding": column})
    for name in ("lengths", "nested", "dictionary", "none"):
        yield f"id-{name}", written({"id": odd[name], "embedding": list(rows(3))})
    for number, text in enumerate((DEEP, NESTED, "{}", "9" * 5000, '{"columns": []}', "\0")):
        for key in ("geo", "rsir"):
            columns = {"embedding": list(rows(3)), "geometry": [b"\x01", b"", b"x" * 50]}
            yield f"{key}-{number}", written(columns, {key: text})


@pytest.mark.slow
def test_damaged_and_odd_parquet_files(tmp_path: Path) -> None:
    paths = []
    for name, data in parquet_files():
        paths.append(tmp_path / f"{name}.parquet")
        paths[-1].write_bytes(data)
    assert len(paths) > 80
    found = run_hostile("tests.support.read_archive", "parquet", paths)
    check(found, fine={"good.parquet"})
