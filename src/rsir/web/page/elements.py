"""The page's own elements: three Vue components, and plain HTML controls.

What comes from data (names of files, classes) goes into texts and property values only: NiceGUI
takes a property whose name begins with ":" for JavaScript, so no name is made from data, and
nothing from data goes through `Element.props("…")`, which is parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from nicegui import html, ui
from nicegui.element import Element
from nicegui.elements.leaflet import leaflet  # registers it for the map's import

Call = Callable[..., Any]


class Drop(Element, component="static/rsir_drop.js"):
    """Where an image is chosen, dropped or pasted; events: sent (token), refused (message)."""

    def __init__(self, url: str, most: int) -> None:
        super().__init__()
        label = "Choose an image to search with"
        having(self, url=url, most=most, label=label, accept="image/*,.tif,.tiff,.jp2")


class Results(Element, component="static/rsir_results.js"):
    """The results; events: details, more (id), rate ({id, rating}), picked (ids)."""

    def __init__(self) -> None:
        super().__init__()
        having(self, label="Results, best first")


class Map(Element, component="static/rsir_map.js"):
    """The map; events: ready, point, window, area (degrees), details (id)."""

    def __init__(self) -> None:
        super().__init__()
        self.add_resource(Path(leaflet.__file__).parent / "dist")
        having(self, label="Map of the indexed scenes and the results; arrow keys move it")


def having(element: Element, **values: Any) -> Any:
    """`element` with attributes; "_" in names is "-", None takes an attribute away."""
    for name, value in values.items():
        name = name.rstrip("_").replace("_", "-")
        if value is None:
            element.props.pop(name, None)
        else:
            element.props[name] = value
    element.update()
    return element


def icon(name: str) -> Any:
    """An icon that screen readers pass over."""
    return having(html.i(name).classes("material-icons"), aria_hidden="true")


def button(
    text: str,
    on_click: Call | None = None,
    *,
    symbol: str = "",
    label: str = "",
    kind: str = "",
    script: str | None = None,
) -> Any:
    """A button; label: what it is called where there is no text, or too little.

    on_click is called without arguments; script: JavaScript to be run by the browser instead.
    """
    made = having(html.button().classes(f"button {kind}"), type="button")
    with made:
        if symbol:
            icon(symbol)
        if text:
            html.span(text)
    if label:
        having(made, aria_label=label, title=label)
    if script is not None:
        return made.on("click", js_handler=f"() => {script}")
    return made.on("click", on_click, args=[])


def field(text: str) -> Any:
    """A label around the control that is put into it."""
    made = html.label().classes("field")
    with made:
        html.span(text).classes("field-name")
    return made


def select(label: str, options: Mapping[str, str], value: str, on_change: Call) -> Any:
    """A labelled drop-down list; options: texts by value. on_change gets the value."""
    with field(label):
        made = html.select()
        with made:
            for one, text in options.items():
                having(html.option(text), value=one)
    having(made, value=value)
    return made.on("change", _valued(on_change), js_handler="(e) => emit(e.target.value)")


def date_field(label: str, value: str, on_change: Call, *, least: str, most: str) -> Any:
    """A labelled date; values are as 2024-05-31, "" for none."""
    with field(label):
        made = having(html.input_(), type="date", value=value, min=least or None, max=most or None)
    return made.on("change", _valued(on_change), js_handler="(e) => emit(e.target.value)")


def checkbox(label: str, value: bool, on_change: Call, *, note: str = "") -> Any:
    """A box to tick with its text; on_change gets whether it is ticked."""
    with html.label().classes("check"):
        made = having(html.input_(), type="checkbox", checked=value or None)
        html.span(label).classes("check-name")
        if note:
            html.span(note).classes("check-note")
    return made.on("change", _valued(on_change), js_handler="(e) => emit(e.target.checked)")


def image(source: str, alt: str) -> Any:
    """A picture; one of the service's own is asked for under the prefix that the page is under."""
    return having(html.img(), src=source, alt=alt, loading="lazy", decoding="async")


def listed(pairs: Iterable[tuple[str, str]]) -> Any:
    """A description list of names and texts."""
    made = html.dl()
    with made:
        for name, text in pairs:
            html.dt(name)
            html.dd(text)
    return made


def say(message: str, *, bad: bool = False) -> None:
    """A message that shows for some seconds and is read out; as text."""
    ui.notify(message, type="negative" if bad else "info", position="bottom", multi_line=True)


def _valued(on_change: Call) -> Call:
    return lambda event: on_change(event.args)
