"""Imports point down, form no circle, and load nothing that is not needed.

The layers stand in docs/architecture.md, once; these tests read them from there.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "rsir"
FLOOR = re.compile(r"^\| (\d+) \| (`[^|]*`) \|", re.MULTILINE)
INSIDE = re.compile(r"^\| `(\w+)` \| (`[^|]*/[^|]*`) \|", re.MULTILINE)

Graph = Mapping[str, set[str]]
"""The modules that each module imports, by dotted names."""


@cache
def floors() -> dict[str, int]:
    """The floor of each room, from the table in docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    return {
        room: int(floor)
        for floor, rooms in FLOOR.findall(text)
        for room in re.findall(r"`([^`]+)`", rooms)
    }


@cache
def inside() -> dict[str, dict[str, int]]:
    """The floor of each part of a large room, by room, from the second table."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    return {
        room: {
            f"{room}.{part}": -depth
            for depth, parts in enumerate(order.split("/"))
            for part in re.findall(r"`(\w+)`", parts)
        }
        for room, order in INSIDE.findall(text)
    }


def module_name(file: Path, source: Path) -> str:
    parts = file.relative_to(source.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source: Path) -> dict[str, set[str]]:
    """The graph of all imports between the files of a package, wherever they stand in a file."""
    files = {module_name(file, source): file for file in source.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for module, file in files.items():
        graph[module] = set()
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                package = module if file.name == "__init__.py" else module.rpartition(".")[0]
                for _ in range(node.level - 1):
                    package = package.rpartition(".")[0]
                base = ".".join(filter(None, [package if node.level else "", node.module]))
                names = [
                    full if (full := f"{base}.{alias.name}") in files else base
                    for alias in node.names
                ]
            else:
                continue
            graph[module] |= {name for name in names if name in files}
    return graph


@cache
def graph() -> dict[str, set[str]]:
    return imports_of(SOURCE)


def room_of(module: str, rooms: Iterable[str]) -> str | None:
    """The innermost room that a module lies in; None for the package's root."""
    inside = module.partition(".")[2]
    found = [room for room in rooms if inside == room or inside.startswith(f"{room}.")]
    return max(found, key=len, default=None)


def upward(graph: Graph, floors: Mapping[str, int]) -> list[str]:
    """The imports that do not point down, as sentences."""
    found = []
    for module, imported in graph.items():
        room = room_of(module, floors)
        for other in sorted(imported):
            target = room_of(other, floors)
            if room is None or target is None or room == target:
                continue
            if floors[room] <= floors[target]:
                found.append(f"{module} (floor {floors[room]}) imports {other} ({floors[target]})")
    return found


def circle(graph: Graph) -> list[str]:
    """Modules that import each other in a circle, the first one again at the end; [] if none do."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.slow
def test_every_file_lies_in_a_room_of_the_table_and_every_room_exists() -> None:
    rooms = floors()
    assert len(rooms) > 20
    assert [
        module for module in graph() if module != "rsir" and room_of(module, rooms) is None
    ] == []
    for room in rooms:
        path = SOURCE / room.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), room


def test_imports_point_down() -> None:
    assert upward(graph(), floors()) == []


@pytest.mark.parametrize("room", ["archive", "store", "web"])
def test_imports_inside_a_large_room_point_down(room: str) -> None:
    parts = inside()[room]
    within = {
        module: {other for other in imported if other.startswith(f"rsir.{room}.")}
        for module, imported in graph().items()
        if module.startswith(f"rsir.{room}.")
    }
    assert [module for module in within if room_of(module, parts) is None] == []
    assert {room_of(module, parts) for module in within} == set(parts)
    assert upward(within, parts) == []


def test_no_circle_between_files() -> None:
    assert circle(graph()) == []


def test_nothing_inside_imports_the_root() -> None:
    assert [module for module, imported in graph().items() if "rsir" in imported] == []


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    package = write(
        tmp_path / "pack",
        {
            "__init__.py": "",
            "low/__init__.py": "",
            "low/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pack.top",
            "low/b.py": "def f():\n    from pack.low import a\n",
            "low/c.py": "from . import b\nfrom .. import top\nfrom ..top import x\nimport os",
            "top.py": "from pack.low.c import y\n",
        },
    )
    assert imports_of(package) == {
        "pack": set(),
        "pack.low": set(),
        "pack.low.a": {"pack.top"},
        "pack.low.b": {"pack.low.a"},
        "pack.low.c": {"pack.low.b", "pack.top"},
        "pack.top": {"pack.low.c"},
    }
    found = circle(imports_of(package))
    assert set(found) >= {"pack.top", "pack.low.c"}
    assert upward(imports_of(package), {"low": 1, "top": 2}) == [
        "pack.low.a (floor 1) imports pack.top (2)",
        "pack.low.c (floor 1) imports pack.top (2)",
    ]


def test_rooms_on_one_floor_do_not_import_each_other() -> None:
    assert upward({"p.a": {"p.b"}, "p.b": set()}, {"a": 1, "b": 1})
    assert not upward({"p.a.x": {"p.a.y"}, "p.a.y": set()}, {"a": 1})
    assert upward({"p.a.x.m": {"p.a.y"}, "p.a.y": set()}, {"a": 1, "a.x": 1, "a.y": 2})


def loaded_by(statement: str) -> set[str]:
    """The top-level modules, and those of rsir, in a fresh interpreter after `statement`."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = done.stdout.split()
    return {name.partition(".")[0] for name in names} | {n for n in names if n.startswith("rsir.")}


HEAVY = {"torch", "torchvision", "timm", "lightning", "faiss", "lancedb", "pyarrow", "rasterio"}
HEAVY |= {"huggingface_hub", "torchgeo", "PIL", "numpy", "jinja2"}


def test_the_shell_starts_without_anything_heavy() -> None:
    assert not loaded_by("import rsir.cli") & HEAVY


def test_importing_rsir_loads_almost_nothing() -> None:
    assert not loaded_by("import rsir") & (HEAVY | {"typer", "rich"})


STORE_FORBIDS = {"images", "scenes", "sources", "models", "methods", "nn", "archive", "data"}


@pytest.mark.slow
def test_a_store_knows_nothing_of_images_models_scenes_or_torch() -> None:
    modules = [name for name in graph() if name.startswith("rsir.store")]
    assert {"rsir.store.lance.store", "rsir.store.milvus.store"} <= set(modules)
    reached = set(modules)
    while more := {other for module in reached for other in graph()[module]} - reached:
        reached |= more
    assert not [name for name in reached if name.split(".")[1] in STORE_FORBIDS]
    loaded = loaded_by("import " + ", ".join(modules))
    assert not loaded & {"torch", "torchvision", "timm", "PIL", "rasterio"}
    assert not {name.split(".")[1] for name in loaded if "." in name} & STORE_FORBIDS


@pytest.mark.slow
def test_training_needs_neither_faiss_nor_lancedb() -> None:
    loaded = loaded_by("import rsir.training.train, rsir.methods.dual_attention")
    assert not loaded & {"faiss", "lancedb", "pyarrow", "rasterio"}


@pytest.mark.parametrize(
    "folder",
    sorted({p.parent for p in SOURCE.rglob("*.py")}),
    ids=lambda f: str(f.relative_to(SOURCE)),
)
def test_a_folder_has_few_enough_files_to_look_through(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= 16, "a folder with more files wants rooms"
