"""Imports only point down, and what is not needed is not imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "rsir"

LAYERS = [
    {"types", "errors"},
    {"geo", "data", "nn", "losses", "metrics", "ranking", "distances", "statistics"},
    {"methods", "gallery", "settings"},
    {"model"},
    {"training", "fitting", "encode", "scoring", "evaluate", "leakage", "adapt", "cost", "explain"},
    {"archive", "figures"},
    {"timing"},
    {"reproduce", "web", "client"},
    {"demo", "terminal"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def modules() -> list[Path]:
    return sorted(p for p in SOURCE.rglob("*.py") if p != SOURCE / "__init__.py")


def part_of(module: Path) -> str:
    return module.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_parts(module: Path) -> set[str]:
    """The parts of rsir that a module names in any import, also in functions and for types."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("rsir.")}
    return found & LEVEL.keys()


def test_every_part_has_its_place() -> None:
    assert {part_of(module) for module in modules()} <= LEVEL.keys()


@pytest.mark.parametrize("module", modules(), ids=lambda m: str(m.relative_to(SOURCE)))
def test_imports_point_down(module: Path) -> None:
    own = part_of(module)
    upward = {part for part in imported_parts(module) if LEVEL[part] > LEVEL[own]}
    assert not upward, f"{own} imports {upward}"


def loaded_by(statement: str) -> set[str]:
    """The top-level modules in a fresh interpreter after `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {"torch", "torchvision", "timm", "lightning", "faiss", "lancedb", "pyarrow", "rasterio"}
HEAVY |= {"huggingface_hub", "torchgeo", "PIL", "numpy", "jinja2"}


def test_the_shell_starts_without_anything_heavy() -> None:
    assert not loaded_by("import rsir.cli") & HEAVY


def test_importing_rsir_loads_almost_nothing() -> None:
    assert not loaded_by("import rsir") & (HEAVY | {"typer", "rich"})


def test_stores_never_import_torch() -> None:
    stores = [m.stem for m in (SOURCE / "archive").glob("*.py") if m.stem != "__init__"]
    assert {"exact", "lance", "store"} <= set(stores)
    statement = "import " + ", ".join(f"rsir.archive.{name}" for name in stores)
    assert "torch" not in loaded_by(statement)


def test_training_needs_neither_faiss_nor_lancedb() -> None:
    loaded = loaded_by("import rsir.training.train, rsir.methods.dual_attention")
    assert not loaded & {"faiss", "lancedb", "pyarrow", "rasterio"}
