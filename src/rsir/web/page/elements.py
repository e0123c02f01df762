"""The page's own elements: three Vue components, and plain HTML controls.

Data (names of files, classes) only ever becomes text or the value of a property. No name of a
property comes from data, because NiceGUI runs a property whose name begins with ":" as JavaScript;
and no data goes through `Element.props("…")`, which parses its argument.
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
    """The control to choose, drop or paste an image; events: sent (token), refused (message)."""

    def __init__(self, url: str, most: int) -> None:
        super().__init__()
        label = "Choose an image to search with"
        with_attributes(self, url=url, most=most, label=label, accept="image/*,.tif,.tiff,.jp2")


class Results(Element, component="static/rsir_results.js"):
    """The results; events: details, more (id), rate ({id, rating}), selected (ids)."""

    def __init__(self, *, expected: bool) -> None:
        """expected: whether a search already runs, whose pictures go before the map's."""
        super().__init__()
        with_attributes(self, label="Results, best first", expected=expected)


class Map(Element, component="static/rsir_map.js"):
    """The map; events: ready, point, window, area (degrees), details (id)."""

    def __init__(self) -> None:
        super().__init__()
        self.add_resource(Path(leaflet.__file__).parent / "dist")
        with_attributes(self, label="Map of the indexed scenes and the results; arrow keys move it")


def with_attributes(element: Element, **attributes: Any) -> Any:
    """`element` with these attributes; "_" in a name becomes "-", None removes an attribute."""
    for name, value in attributes.items():
        name = name.rstrip("_").replace("_", "-")
        if value is None:
            element.props.pop(name, None)
        else:
            element.props[name] = value
    element.update()
    return element


def icon(name: str) -> Any:
    """An icon; screen readers skip it."""
    return with_attributes(html.i(name).classes("material-icons"), aria_hidden="true")


def button(
    text: str,
    on_click: Call | None = None,
    *,
    symbol: str = "",
    label: str = "",
    kind: str = "",
    script: str | None = None,
) -> Any:
    """A button; label: its accessible name, where the text is missing or not enough.

    on_click: called without arguments. script: JavaScript that the browser runs instead.
    """
    element = with_attributes(html.button().classes(f"button {kind}"), type="button")
    with element:
        if symbol:
            icon(symbol)
        if text:
            html.span(text)
    if label:
        with_attributes(element, aria_label=label, title=label)
    if script is not None:
        return element.on("click", js_handler=f"() => {script}")
    return element.on("click", on_click, args=[])


def field(text: str) -> Any:
    """A label; the control goes inside."""
    element = html.label().classes("field")
    with element:
        html.span(text).classes("field-name")
    return element


def dropdown(label: str, options: Mapping[str, str], value: str, on_change: Call) -> Any:
    """A labelled drop-down list; options: texts by value. on_change gets the value."""
    with field(label):
        element = html.select()
        with element:
            for option, text in options.items():
                with_attributes(html.option(text), value=option)
    with_attributes(element, value=value)
    return element.on("change", _with_value(on_change), js_handler="(e) => emit(e.target.value)")


def date_field(label: str, value: str, on_change: Call, *, least: str, most: str) -> Any:
    """A labelled date; values such as "2024-05-31", "" for none."""
    with field(label):
        element = with_attributes(
            html.input_(), type="date", value=value, min=least or None, max=most or None
        )
    return element.on("change", _with_value(on_change), js_handler="(e) => emit(e.target.value)")


def checkbox(label: str, value: bool, on_change: Call, *, note: str = "") -> Any:
    """A checkbox with its text; on_change gets whether it is checked."""
    with html.label().classes("check"):
        element = with_attributes(html.input_(), type="checkbox", checked=value or None)
        html.span(label).classes("check-name")
        if note:
            html.span(note).classes("check-note")
    return element.on("change", _with_value(on_change), js_handler="(e) => emit(e.target.checked)")


def image(source: str, alt: str) -> Any:
    """A picture; an address without a host is relative to the page."""
    return with_attributes(html.img(), src=source, alt=alt, loading="lazy", decoding="async")


def pairs_list(pairs: Iterable[tuple[str, str]]) -> Any:
    """A description list of names and texts."""
    element = html.dl()
    with element:
        for name, text in pairs:
            html.dt(name)
            html.dd(text)
    return element


def notify(message: str, *, bad: bool = False) -> None:
    """Show a message, as text, for some seconds; screen readers read it out."""
    ui.notify(message, type="negative" if bad else "info", position="bottom", multi_line=True)


def _with_value(on_change: Call) -> Call:
    return lambda event: on_change(event.args)
