"""The texts of a result."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

pytest.importorskip("nicegui", reason="the page needs the extra 'web'")

from rsir.types import Hit
from rsir.web.page import cards
from tests.web.page.archives import square


def test_the_card_and_the_facts_of_a_hit():
    hit = Hit(
        "a/b?c", 0.51234, 0.9, "/images/<b>.tif", square(9, -49),
        datetime(2024, 5, 1, 12, tzinfo=UTC),
        {"class": "water", "cloud": 3, "bands": ["4", "8"]}, 99.3,
    )  # fmt: skip
    card = cards.card("my archive", hit)
    assert card["picture"] == "api/archives/my%20archive/items/a%2Fb%3Fc/thumbnail?size=256"
    assert (card["score"], card["class"], card["date"]) == ("0.512", "water", "2024-05-01")
    assert (card["name"], card["location"]) == ("<b>.tif", "48.5000° S, 9.5000° E")
    facts = dict(cards.facts(hit, ("red", "nir")))
    assert (facts["Bands"], facts["Bands of the file"]) == ("red, nir", "4, 8")
    assert facts["Source"] == "/images/<b>.tif"
    assert facts["Nearer than"] == "99.3 % of random pairs"
    assert facts["Extent"] == "9.000000, -49.000000, 10.000000, -48.000000"
    assert facts["cloud"] == "3"


def test_the_card_of_a_hit_without_properties():
    hit = Hit("a", -0.5, 1.5, "x")
    card = cards.card("a", hit)
    assert (card["class"], card["location"], card["date"], card["footprint"]) == ("", "", "", None)
    facts = dict(cards.facts(hit, ("red", "green")))
    assert facts["Bands"] == "red, green"
    assert "Location" not in facts
    assert "Date" not in facts
