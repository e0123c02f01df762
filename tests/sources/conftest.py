"""Scenes written by the test, and a web server that serves them."""

from tests.support.scenes import server, write

__all__ = ["server", "write"]
