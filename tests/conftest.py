"""Fixtures that more than one test file uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.milvus_server import Server, UnavailableError

# The nets of these tests are small: a second thread costs more than it brings, and with one the
# same seed gives the same sums on any machine.
torch.set_num_threads(1)

REPOSITORY = Path(__file__).resolve().parent.parent

# The processes that tests start import the helpers of tests/support too.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])
)


ON_MILVUS = tuple(
    f"tests/{file}"
    for file in (
        "contract/",
        "archive/test_on_milvus.py",
        "cli/test_remote_stores.py",
    )
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where processes share the tests, a file stays in one, and so does all that needs Milvus.

    The server is one for all of them then, and it is the tests' heaviest neighbour.
    """
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(ON_MILVUS):
                return "milvus"
            # These files share a quick reproduction.
            if nodeid.startswith("tests/reproduce/"):
                return "reproduce"
            return super()._split_scope(nodeid)

    return Together(config, log) if config.getvalue("dist") == "loadfile" else None


NEEDS = {
    "browser": ("tests/web/page/test_page.py",),
    "server": (
        *ON_MILVUS[1:],
        "tests/contract/test_milvus.py",
        "tests/contract/test_cut_off.py",
        "tests/cli/test_serve.py",
        "tests/web/service/test_load.py",
        "milvus_server",
        "secured_milvus",
        "bucket",
    ),
    "cluster": ("tests/archive/test_ray.py", "tests/cli/test_index_on_ray.py", "ray_installed"),
    "training": (
        "tests/training/test_loop.py",
        "tests/training/test_resume.py",
        "tests/training/test_train.py",
        "tests/reproduce/test_image_sets.py",
        "tests/reproduce/test_own_tables.py",
        "tests/reproduce/test_refusals.py",
        "tests/reproduce/test_runs.py",
        "tests/reproduce/test_stored.py",
        "tests/cli/test_demo.py",
        "model",
        "run",
        "trained",
    ),
    "kill": ("tests/durability/", "tests/archive/folder/test_creation.py"),
    "slow": ("tests/cost/", "tests/web/rest/test_schema.py"),
}
"""What tests need beside Python: the files and fixtures of each marker."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with what it needs, so that `make quick` can leave it out."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        for need, signs in NEEDS.items():
            if (
                item.nodeid.startswith(tuple(sign for sign in signs if "/" in sign))
                or fixtures & set(signs)
                or (need == "server" and parameters.get("name") == "milvus")
                or (need == "kill" and "kill" in item.name)
            ):
                item.add_marker(need)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real image sets: RSIR_DATA, or ../shared/data beside the repository."""
    root = Path(os.environ.get("RSIR_DATA", REPOSITORY.parent / "shared" / "data"))
    if not root.is_dir():
        message = f"no real images at {root}; set RSIR_DATA to the folder that holds them"
        if os.environ.get("RSIR_REQUIRE_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return root


@pytest.fixture(scope="session")
def weights(data_root: Path) -> Path:
    """ImageNet weights of mobilenetv2_100, beside the real images."""
    file = data_root.parent / "weights" / "mobilenetv2_100_imagenet.safetensors"
    if not file.is_file():
        message = f"no weights at {file}"
        if os.environ.get("RSIR_REQUIRE_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return file


@pytest.fixture(scope="session")
def ray_installed() -> None:
    """For tests that need Ray."""
    try:
        import ray.data  # noqa: F401  # asks whether the extra is there
    except ImportError as error:
        if os.environ.get("RSIR_REQUIRE_RAY") == "1":
            pytest.fail(f"no Ray: {error}")
        pytest.skip("no Ray: install the extra 'ray'")


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def coloured_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes that a small net learns at once: 12 images of 32² each, a colour a class."""
    root = tmp_path_factory.mktemp("coloured")
    random = np.random.default_rng(0)
    colours = {"field": (90, 160, 60), "lake": (30, 60, 150), "sand": (210, 190, 130)}
    colours["roof"] = (170, 80, 70)
    for name, colour in colours.items():
        (root / name).mkdir()
        for i in range(12):
            noise = random.normal(0, 40, (32, 32, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{name}{i:02d}.png")
    return root


@contextmanager
def _running(folder: Path, *, secured: bool) -> Iterator[Server]:
    try:
        server = Server(folder, secured=secured)
        server.start()
    except UnavailableError as error:
        if os.environ.get("RSIR_REQUIRE_MILVUS") == "1":
            pytest.fail(f"no Milvus server: {error}")
        pytest.skip(f"no Milvus server: {error}")
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Milvus server of this machine: one for all tests, each with collections of its own."""
    with _running(tmp_path_factory.mktemp("milvus"), secured=False) as server:
        yield server


@pytest.fixture(scope="module")
def secured_milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Another, that serves only root with the password Milvus."""
    with _running(tmp_path_factory.mktemp("secured"), secured=True) as server:
        yield server


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of a server of this machine, which speaks S3; its uri."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="bucket")
        yield "s3://bucket"
    server.stop()
