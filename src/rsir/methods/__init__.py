"""The published systems, one file each; one line in METHODS registers a method."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from rsir.errors import UsageError

if TYPE_CHECKING:
    from rsir.methods.base import Method

METHODS = {
    "pooled": "rsir.methods.pooled:Pooled",
    "dual-attention": "rsir.methods.dual_attention:DualAttention",
    "dah": "rsir.methods.dah:DAH",
    "mlrsir-net": "rsir.methods.mlrsir_net:MLRSIRNet",
    "eara": "rsir.methods.eara:EARA",
    "jsrt": "rsir.methods.jsrt:JSRT",
}


def method_type(name: str) -> type[Method]:
    """The class of the method with this name; UsageError lists the known names."""
    if name not in METHODS:
        raise UsageError(f"there is no method {name!r}; there are: {', '.join(METHODS)}")
    module, _, attribute = METHODS[name].partition(":")
    found: type[Method] = getattr(import_module(module), attribute)
    return found
