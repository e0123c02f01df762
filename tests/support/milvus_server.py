"""A real Milvus server for tests: installed once in a cache, started in a folder of its own."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from contextlib import suppress
from pathlib import Path

PACKAGE = "milvus==2.3.5"

# Runs in the environment that has the package, and writes the settings of a server into a folder.
# Ticks are short, because a strongly consistent call waits for the next tick. Responses are small,
# so that some do not fit. A killed server's locks expire with its session. The etcd inside listens
# on ports of its own, so that several servers can run side by side.
PREPARE = """
import pathlib, sys
import milvus
programs, folder, port, client, peer, secured = sys.argv[1:]
milvus._initialize_data_files(programs)
settings = milvus.MilvusServerConfig(data_dir=folder, proxy_port=port, etcd_port=client)
settings.set("proxy.timeTickInterval", 10)
settings.set("proxy.grpc.serverMaxSendSize", 8 << 20)
settings.set("common.session.ttl", 10)
settings.set("queryCoord.checkInterval", 100)
settings.set("queryCoord.distPullInterval", 50)
settings.set("authorization_enabled", secured == "True")
settings.resolve()
etcd = pathlib.Path(folder, "configs", "etcd.yaml")
etcd.write_text(f'''
name: default
listen-client-urls: http://localhost:{client}
advertise-client-urls: http://localhost:{client}
listen-peer-urls: http://localhost:{peer}
initial-advertise-peer-urls: http://localhost:{peer}
initial-cluster: default=http://localhost:{peer}
''')
file = pathlib.Path(folder, "configs", "milvus.yaml")
file.write_text(file.read_text().replace("etcd:\\n", f"etcd:\\n  config:\\n    path: {etcd}\\n", 1))
"""


class UnavailableError(Exception):
    """No server can run here; the message says why."""


def environment() -> Path:
    """The environment that has the server; it is created if it does not exist.

    RSIR_MILVUS names it; otherwise it is in the user's cache.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(
        os.environ.get("RSIR_MILVUS") or cache / "rsir-tests" / PACKAGE.replace("==", "-")
    )
    if sys.platform != "linux":
        raise UnavailableError(f"{PACKAGE} runs on Linux only")
    done = folder / ".ready"
    if not done.exists():
        try:
            venv.create(folder, with_pip=True, clear=True)
            _run([_python(folder), "-m", "pip", "install", "--quiet", PACKAGE])
            done.touch()
        except (OSError, subprocess.SubprocessError) as error:
            reason = getattr(error, "stderr", None) or error
            raise UnavailableError(
                f"{PACKAGE} cannot be installed into {folder} ({reason}); RSIR_MILVUS names an "
                "environment that has it"
            ) from error
    return folder


class Server:
    """A Milvus server on a port of its own that keeps its data in `folder`.

    secured: it requires authentication; its only user is root with the password Milvus.
    """

    def __init__(self, folder: Path, *, secured: bool = False) -> None:
        home = environment()
        self.port, self._health, *etcd = _free_ports(4)
        self._programs = home / "server"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        try:
            words = [self._programs, folder, self.port, *etcd, secured]
            _run([_python(home), "-c", PREPARE, *words])
        except subprocess.SubprocessError as error:
            reason = getattr(error, "stderr", None) or error
            raise UnavailableError(f"{PACKAGE} cannot be set up ({reason})") from error

    def uri(self, collection: str) -> str:
        return f"milvus://127.0.0.1:{self.port}/{collection}"

    def start(self) -> None:
        """Start the server and wait until it reports that it is healthy."""
        programs = self._programs / "bin"
        more = {
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": str(self._health),
            "MILVUS_RUN_DIR": str(self._folder / "run"),
            "LD_LIBRARY_PATH": str(programs),
        }
        with (self._folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [programs / "milvus", "run", "standalone"],
                cwd=self._folder,
                env=os.environ | more,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
            )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        until = time.monotonic() + 120
        while time.monotonic() < until and self._process.poll() is None:
            with (
                suppress(OSError, urllib.error.URLError),
                direct.open(f"http://127.0.0.1:{self._health}/healthz", timeout=5) as answer,
            ):
                if b"OK" in answer.read():
                    return
            time.sleep(0.1)
        self.kill()
        raise UnavailableError(f"{PACKAGE} did not start; see {self._folder / 'log.txt'}")

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        """Stop the server and delete its folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _python(home: Path) -> Path:
    return home / "bin" / "python"


def _run(command: list[object]) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


if __name__ == "__main__":  # a server for experiments: python milvus_server.py FOLDER
    server = Server(Path(sys.argv[1]).resolve())
    server.start()
    print(server.uri("my_archive"), flush=True)
    with suppress(KeyboardInterrupt):
        signal.pause()
    server.kill()
