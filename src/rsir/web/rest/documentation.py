"""The API's documentation as an HTML page without external resources, made from OpenAPI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ api.info.title }} – REST interface</title>
<style>
:root { color-scheme: light dark; }
body { max-width: 60rem; margin: 0 auto; padding: 1rem 1.5rem 3rem; line-height: 1.5;
  font-family: system-ui, sans-serif; background: Canvas; color: CanvasText; }
h2 { border-top: 1px solid #8886; padding-top: 1rem; font-size: 1.05rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .1rem 1rem .1rem 0;
  vertical-align: top; }
code { font-family: ui-monospace, monospace; }
</style>
</head>
<body>
<h1>{{ api.info.title }} {{ api.info.version }}</h1>
<p>{{ api.info.summary }} For programs: <a href="openapi.json">openapi.json</a>
(OpenAPI {{ api.openapi }}).</p>
{%- for path, operations in api.paths.items() %}
{%- for method, operation in operations.items() %}
<h2 id="{{ operation.operationId }}"><code>{{ method | upper }} {{ path }}</code></h2>
<p>{{ operation.description }}</p>
{%- if operation.parameters %}
<table><tr><th>parameter</th><th>in</th><th></th></tr>
{%- for p in operation.parameters %}
<tr><td><code>{{ p.name }}</code>{{ " *" if p.required }}</td><td>{{ p.in }}</td>
<td>{{ p.description or "" }}</td></tr>
{%- endfor %}</table>
{%- endif %}
{%- if operation.requestBody %}
<p>Body: {% for type, body in operation.requestBody.content.items() %}<code>{{ type }}</code>,
{{ reference(body.schema) }}{% endfor %}</p>
{%- endif %}
<p>Responses: {% for status, answer in operation.responses.items() -%}
{{ status }}{% if not loop.last %}, {% endif %}{% endfor %}</p>
{%- endfor %}
{%- endfor %}
<h1>Types</h1>
{%- for name, schema in api.components.schemas.items() %}
<h2 id="{{ name }}"><code>{{ name }}</code></h2>
<p>{{ schema.description or "" }}</p>
<table>
{%- for field, of in (schema.properties or {}).items() %}
<tr><td><code>{{ field }}</code>{{ " *" if field in (schema.required or []) }}</td>
<td>{{ reference(of) }}</td><td>{{ of.description or "" }}</td></tr>
{%- endfor %}</table>
{%- endfor %}
</body>
</html>
"""


def page_of_operations(openapi: Mapping[str, Any]) -> str:
    """The HTML page of an OpenAPI description: every operation, every type."""
    page = Environment(autoescape=True).from_string(_PAGE)
    return page.render(api=openapi, reference=_reference)


def _reference(schema: Mapping[str, Any]) -> str:
    """A schema in a few words, e.g. "string or null"."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " or ".join(_reference(part) for part in schema[key])
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    kind = str(schema.get("const") or schema.get("type") or "any")
    return f"{kind} of {_reference(schema['items'])}" if "items" in schema else kind
