"""A web server with files of an image set."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import pytest

from tests.support.image_sets import Server, tiny


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tiny(tmp_path_factory.mktemp("served") / "Tiny" / "Images").parent.parent
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(root.rglob("*.png")):
            archive.write(path, path.relative_to(root))
    Server.files = {"set.zip": packed.getvalue(), "short.zip": packed.getvalue(), "no.zip": b"no"}
    Server.files["large.zip"] = bytes(3 << 20)
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()
