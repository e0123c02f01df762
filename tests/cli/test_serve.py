"""`rsir serve` as a process, with an archive of real images: start, stop, mistakes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

import rsir
from rsir.archive import Archive
from rsir.cli import app as shell
from rsir.cli.serve import _key
from rsir.errors import RsirError
from rsir.models.encoder import Encoder
from rsir.models.model import build_model

KEY = "the-owner-has-this-key"


@pytest.fixture(scope="module")
def images(data_root: Path) -> list[Path]:
    """A few real images of three classes."""
    folders = sorted((data_root / "UCMerced_LandUse" / "Images").iterdir())
    found = [file for folder in folders[:3] for file in sorted(folder.iterdir())[:4]]
    assert len(found) == 12
    return found


@pytest.fixture(scope="module")
def archive(images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with a small untrained model, which finds at least the query image itself."""
    folder = tmp_path_factory.mktemp("serve")
    model = build_model("pooled", backbone="resnet10t", spec=32, classes=("a", "b"))
    made = Archive.create(folder / "archive", Encoder.load(model.save(folder / "model")))
    assert made.add(images).added == 12
    return folder / "archive"


@dataclass
class Served:
    process: subprocess.Popen[str]
    url: str = ""
    lines: list[str] = field(default_factory=list)


@contextmanager
def serving(*arguments: object, **environment: str) -> Iterator[Served]:
    command = [sys.executable, "-m", "rsir.cli", "serve", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--no-page"], stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )
    served = Served(process)
    up = threading.Event()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            served.lines.append(line)
            if "running on http" in line:
                served.url = line[line.index("http://") :].split()[0].rstrip('"}')
                up.set()
        up.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert up.wait(120)
        assert served.url, "".join(served.lines)
        yield served
    finally:
        process.terminate()
        process.wait(60)
        reader.join(60)
        assert process.stderr is not None
        process.stderr.close()


def test_it_serves_until_sigterm(archive: Path, images: list[Path]) -> None:
    with serving(f"ucm={archive}", f"other={archive}", RSIR_API_KEY=KEY) as served:
        assert served.url.startswith("http://127.0.0.1:")
        local = Archive.open(archive)
        with rsir.connect(served.url, "ucm", key=KEY) as remote:
            for query in images[::4]:
                found, expected = remote.search(query, 4), local.search(query, 4)
                assert [hit.id for hit in found] == [hit.id for hit in expected]
                assert found[0].source == str(query)
            assert remote.delete(["nothing"]) == 0
        with (
            rsir.connect(served.url, "other", key="wrong-" + KEY) as stranger,
            pytest.raises(RsirError, match="API key"),
        ):
            stranger.delete(["nothing"])
        # It answers only to the names of loopback, not to a site's name that resolves to it.
        answer = httpx2.get(f"{served.url}/api/archives", headers={"host": "evil.example"})
        assert answer.status_code == 403
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(60) == 0
    lines = [json.loads(line) for line in served.lines]
    assert sum(line["message"] == "search" for line in lines) == 3
    assert not [line for line in served.lines if KEY in line]
    assert not [line for line in lines if line["level"] in ("error", "critical")]


def test_the_key_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RSIR_API_KEY", raising=False)
    assert _key(None) is None
    monkeypatch.setenv("RSIR_API_KEY", KEY)
    assert _key(None) == KEY
    (tmp_path / "key").write_text("another-key-in-a-file\n")
    assert _key(tmp_path / "key") == "another-key-in-a-file"


def test_mistakes_are_reported_before_it_starts(archive: Path, tmp_path: Path) -> None:
    def refused(*arguments: object, **environment: str) -> RsirError:
        done = CliRunner(env=environment).invoke(shell, ["serve", *map(str, arguments)])
        assert isinstance(done.exception, RsirError), done.output
        return done.exception

    assert "not an archive" in str(refused(tmp_path))
    assert "two archives" in str(refused(archive, archive))
    assert "letters" in str(refused(f"a b={archive}"))
    assert "16 characters" in str(refused(archive, RSIR_API_KEY="short"))
    assert "cannot be read" in str(refused(archive, "--key-file", tmp_path / "none"))
    (tmp_path / "empty").write_text("\n")
    assert "is empty" in str(refused(archive, "--key-file", tmp_path / "empty"))
    assert "no such folder" in str(refused(archive, "--allow-add", tmp_path / "none"))
    for host in ("127.0.0.1", "::1"):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as other:
            try:
                other.bind((host, 0))
            except OSError:
                assert ":" in host  # a machine without IPv6
                continue
            other.listen()
            port = other.getsockname()[1]
            said = str(refused(archive, "--host", host, "--port", port))
        shown = "[::1]" if ":" in host else host
        assert said.startswith(f"cannot listen on {shown}:{port} (Address already in use)")
        assert "choose another --port" in said
        assert "\n" not in said
