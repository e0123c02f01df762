"""Weights of the hub, with a hub on this machine, and without one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from huggingface_hub import constants

from rsir.errors import ModelError
from rsir.models.model import resolve
from rsir.nn.backbone import Backbone
from rsir.nn.hub import hub_or_cache


class Hub(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.asked.append(self.path)
        self.send_response(404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    Hub.asked.clear()
    server = HTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    yield endpoint
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The address of a port where nobody listens; and an empty cache."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return endpoint


def test_a_hub_that_answers_is_used(hub: str) -> None:
    with hub_or_cache() as silence:
        assert (silence, constants.HF_HUB_OFFLINE) == ("", False)
    assert Hub.asked


@pytest.mark.slow
def test_a_silent_hub_is_asked_once(
    nowhere: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError, match="cannot be reached") as refused:
        Backbone("resnet10t", image_size=32, weights="pretrained")
    assert nowhere in str(refused.value)
    assert "give a safetensors file with --weights, or none" in str(refused.value)
    with pytest.raises(ModelError, match="cannot be reached"):
        resolve("hf:owner/name")
    assert not constants.HF_HUB_OFFLINE
    # No lines of retries.
    assert not [line for line in caplog.messages if "etry" in line]
    assert "etry" not in capfd.readouterr().err


def test_a_user_who_works_offline_is_not_asked_for_a_network(
    hub: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        Backbone("resnet10t", image_size=32, weights="pretrained")
    assert not Hub.asked
    assert constants.HF_HUB_OFFLINE
