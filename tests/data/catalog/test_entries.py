"""The facts of the catalogue, checked against each other, and look-ups by name."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from rsir.data.catalog import entries as catalog
from rsir.data.catalog.entries import ENTRIES, Entry
from rsir.errors import UsageError


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))
def test_facts_agree(entry: Entry) -> None:
    assert len(entry.classes) == (0 if entry.name == "satrem" else entry.class_count)
    keys = [catalog._key(name) for name in {*entry.classes, *entry.class_folders}]
    assert len(set(keys)) == len(keys)
    if entry.counts:
        assert set(entry.counts) == set(entry.class_folders)
        assert sum(entry.counts.values()) == entry.images
    assert set(entry.aliases) <= set(entry.classes)
    assert all(name == name.lower().strip() for name in entry.classes)
    for text in (entry.home, entry.licence, entry.sources, entry.citation.title):
        assert text
    assert entry.citation.doi is None or re.fullmatch(r"10\.\d{4,}/\S+", entry.citation.doi)
    assert entry.layouts


def test_the_papers_sets() -> None:
    published = {
        "ucm": (21, 2100), "satrem": (20, 3000), "nwpu-resisc45": (45, 31500),
        "siri-whu": (12, 2400), "aid": (30, 10000), "patternnet": (38, 30400),
        "whu-rs19": (19, 1005), "rsscn7": (7, 2800), "dlrsd": (17, 2100), "whdld": (6, 4940),
    }  # fmt: skip
    assert {name: (e.class_count, e.images) for name, e in ENTRIES.items()} == published


def test_get() -> None:
    assert catalog.get("UCM").name == "ucm"
    assert catalog.get("NWPU RESISC45").name == "nwpu-resisc45"
    assert catalog.get("UC Merced Land Use").name == "ucm"
    with pytest.raises(UsageError, match=r"'mnist'; there are ucm, satrem, .*whdld"):
        catalog.get("mnist")


@pytest.mark.parametrize(
    ("name", "spelling", "canonical"),
    [
        *(("aid", s, "dense residential") for s in ("DenseResidential", "dense_residential",
                                                    "denseresidential", "Dense Residential")),
        ("aid", "StorageTanks", "storage tanks"),
        ("aid", "Parking", "parking"),
        ("aid", "Park", "park"),
        ("nwpu-resisc45", "storage_tank", "storage tank"),
        ("nwpu-resisc45", "storage tanks", "storage tank"),
        ("ucm", "storagetanks", "storage tanks"),
        ("whu-rs19", "footballField", "football field"),
        ("rsscn7", "dRiverLake", "river lake"),
        ("rsscn7", "aGrass", "grass"),
        ("rsscn7", "gParking", "parking"),
        ("dlrsd", "bare-soil", "bare soil"),
        ("dlrsd", "tree", "trees"),
        ("aid", "Igloo", None),
        ("satrem", "beach", None),
    ],
)  # fmt: skip
def test_find_class(name: str, spelling: str, canonical: str | None) -> None:
    assert catalog.find_class(ENTRIES[name], spelling) == canonical


def test_torchgeo_has_what_the_catalogue_says() -> None:
    spec = importlib.util.find_spec("torchgeo")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("torchgeo is not installed")
    init = Path(spec.submodule_search_locations[0], "datasets", "__init__.py").read_text()
    names = [entry.torchgeo for entry in ENTRIES.values() if entry.torchgeo]
    assert sorted(names) == ["PatternNet", "RESISC45", "UCMerced"]
    for name in names:
        assert f"'{name}'" in init
