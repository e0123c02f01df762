"""The service's metrics for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Upper bounds of the histograms' buckets: from a search among few codes to a waiting upload."""


class Metrics:
    """The metrics of one service, in a registry of their own.

    requests, request_seconds: answered requests. searches, search_seconds: finished searches.
    thumbnails: answered thumbnails. inside, ready: gauges; the service sets their functions.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "rsir_requests", "Requests answered.", ("method", "route", "status"),
            registry=registry,
        )  # fmt: skip
        self.request_seconds = Histogram(
            "rsir_request_seconds", "Seconds until the end of the response.", ("route",),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.searches = Counter(
            "rsir_searches", "Searches done.", ("archive", "kind"), registry=registry
        )
        self.search_seconds = Histogram(
            "rsir_search_seconds", "Seconds of a search, including the wait for a thread.",
            ("archive", "kind"), buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.thumbnails = Counter(
            "rsir_thumbnails", "Thumbnails sent, new or cached.", ("origin",), registry=registry
        )
        self.inside = Gauge("rsir_inside", "Calls that run or wait.", ("pool",), registry=registry)
        self.ready = Gauge(
            "rsir_ready", "Whether an archive is ready.", ("archive",), registry=registry
        )

    def searched(self, archive: str, kind: str, seconds: float) -> None:
        """Count a search; kind: "encoding" if it encoded an image, else "searching"."""
        self.searches.labels(archive, kind).inc()
        self.search_seconds.labels(archive, kind).observe(seconds)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
