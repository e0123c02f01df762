"""What is counted for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from rsir.web.service.service import Service

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Upper ends of the classes of durations: from a search among few codes to a waiting upload."""


class Metrics:
    """Counters of one service, in a registry of their own."""

    def __init__(self, service: Service) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "rsir_requests", "Requests answered.", ("method", "route", "status"),
            registry=self.registry,
        )  # fmt: skip
        self.request_seconds = Histogram(
            "rsir_request_seconds", "Seconds to the end of the answer.", ("route",),
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.searches = Counter(
            "rsir_searches", "Searches done.", ("archive", "kind"), registry=self.registry
        )
        self.search_seconds = Histogram(
            "rsir_search_seconds", "Seconds of a search, with waiting for its turn.",
            ("archive", "kind"), buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.thumbnails = Counter(
            "rsir_thumbnails", "Thumbnails answered, made or kept.", ("how",),
            registry=self.registry,
        )  # fmt: skip
        self.registry.register(_State(service))

    def searched(self, archive: str, kind: str, seconds: float) -> None:
        """Count one search; kind: "encoding" if an image was encoded for it, else "searching"."""
        self.searches.labels(archive, kind).inc()
        self.search_seconds.labels(archive, kind).observe(seconds)

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self.registry)


class _State(Collector):
    """What is looked up when it is asked for."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        service = self._service
        inside = GaugeMetricFamily("rsir_inside", "Calls that run or wait.", labels=["pool"])
        for pool in (service.encoding, service.searching, service.pictures):
            inside.add_metric([pool.name], pool.inside)
        ready = GaugeMetricFamily("rsir_ready", "Whether an archive is ready.", labels=["archive"])
        for name in service.archives:
            ready.add_metric([name], name not in service.unready)
        yield from (inside, ready)

    def describe(self) -> Iterator[Metric]:
        """Nothing: names are known without asking, and asking costs."""
        return iter(())
