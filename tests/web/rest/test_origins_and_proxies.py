"""Pages of other sites, and the addresses that clients behind a proxy see."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from rsir.errors import UsageError
from rsir.web.app import create_app
from rsir.web.service.scenes import scene_id
from rsir.web.service.settings import ServiceSettings
from tests.web.served import World

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),
]

SITE = "https://maps.example.org"
FORWARDED = {
    "X-Forwarded-Host": "search.example.org",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Prefix": "/rsir",
}


@pytest.fixture
def serve(world: World) -> Callable[..., TestClient]:
    def serve(*, page: bool = False, client: str = "10.0.0.7", **settings: Any) -> TestClient:
        app = create_app({"land": world.land}, ServiceSettings(**settings), page=page)
        return TestClient(app, client=(client, 5000))

    return serve


def test_only_allowed_origins_get_cors_headers(serve: Callable[..., TestClient]) -> None:
    asked = {"Origin": SITE, "Access-Control-Request-Method": "POST"}
    with serve() as http:
        assert "access-control-allow-origin" not in http.get("/api/archives", headers=asked).headers
        assert http.options("/api/archives/land/search", headers=asked).status_code == 405
        answer = http.get("/api/archives")
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    with serve(origins=(SITE,)) as http:
        answer = http.get("/api/archives", headers=asked)
        assert answer.headers["access-control-allow-origin"] == SITE
        assert "cross-origin-resource-policy" not in answer.headers
        before = http.options("/api/archives/land/search", headers=asked)
        assert before.status_code == 200
        assert "POST" in before.headers["access-control-allow-methods"]
        other = http.get("/api/archives", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


def test_an_origin_is_a_scheme_and_a_host() -> None:
    for wrong in ("maps.example.org", "https://a/b", "https://", "ftp://a", "https://*.a"):
        with pytest.raises(UsageError, match="is no origin"):
            ServiceSettings(origins=(wrong,))


def test_addresses_follow_a_trusted_proxy_only(
    serve: Callable[..., TestClient], world: World
) -> None:
    scene = scene_id(str(world.scene))
    path = f"/api/archives/land/scenes/{scene}"
    rest = "/tiles/{z}/{x}/{y}.png"
    for settings, wanted in (
        ({}, f"http://testserver{path}{rest}"),
        ({"proxies": ("10.0.0.9",)}, f"http://testserver{path}{rest}"),
        ({"proxies": ("10.0.0.7",)}, f"https://search.example.org/rsir{path}{rest}"),
        ({"proxies": ("*",)}, f"https://search.example.org/rsir{path}{rest}"),
    ):
        with serve(**settings) as http:
            assert http.get(path, headers=FORWARDED).json()["tiles"] == [wanted]
            assert http.get("/health", headers=FORWARDED).status_code == 200
            assert http.get("/docs", headers=FORWARDED).status_code == 200
            servers = http.get("/openapi.json", headers=FORWARDED).json().get("servers")
            assert (servers == [{"url": "/rsir"}]) == ("/rsir" in wanted)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Forwarded-Prefix", "//evil.example"),
        ("X-Forwarded-Prefix", "/a/../../b?c"),
        ("X-Forwarded-Host", "evil.example/path"),
        ("X-Forwarded-Host", "a b"),
        ("X-Forwarded-Proto", "javascript"),
    ],
)
def test_forwarded_nonsense_is_ignored(
    serve: Callable[..., TestClient], world: World, name: str, value: str
) -> None:
    path = f"/api/archives/land/scenes/{scene_id(str(world.scene))}"
    with serve(proxies=("*",)) as http:
        (address,) = http.get(path, headers={name: value}).json()["tiles"]
    assert address.startswith(f"http://testserver{path}/")


def test_the_pages_connection_takes_no_other_origin(serve: Callable[..., TestClient]) -> None:
    poll = "/_nicegui_ws/socket.io/?EIO=4&transport=polling"
    with serve(page=True) as http:
        own = http.get(poll, headers={"Origin": "http://testserver"}).status_code
        assert own != 403
        assert http.get(poll).status_code == own
        assert http.get(poll, headers={"Origin": "https://evil.example"}).status_code == 403
    with serve(page=True, origins=(SITE,)) as http:
        assert http.get(poll, headers={"Origin": SITE}).status_code != 403


def test_a_page_of_nowhere_or_of_a_forged_host_is_no_page_of_ours(
    serve: Callable[..., TestClient],
) -> None:
    poll = "/_nicegui_ws/socket.io/?EIO=4&transport=polling"
    forged = {"X-Forwarded-Host": "evil.example"}
    for settings in ({}, {"proxies": ("10.0.0.9",)}, {"proxies": ("10.0.0.7",)}):
        trusted = settings.get("proxies") == ("10.0.0.7",)
        with serve(page=True, **settings) as http:
            for origin in ("null", "", "http://", "file://"):
                assert http.get(poll, headers={"Origin": origin}).status_code == 403
            asked = {"Origin": "https://evil.example", **forged}
            assert (http.get(poll, headers=asked).status_code == 403) is not trusted


def test_the_names_of_the_service_are_those_that_the_client_sees(
    serve: Callable[..., TestClient],
) -> None:
    named: dict[str, Any] = {"hosts": ("search.example.org",)}
    with serve(**named) as http:
        assert http.get("/api/archives", headers=FORWARDED).status_code == 403
    with serve(**named, proxies=("10.0.0.7",)) as http:
        assert http.get("/api/archives", headers=FORWARDED).status_code == 200
        other = FORWARDED | {"X-Forwarded-Host": "evil.example"}
        assert http.get("/api/archives", headers=other).status_code == 403


def test_the_page_lies_under_the_prefix_of_a_proxy(serve: Callable[..., TestClient]) -> None:
    with serve(page=True, proxies=("10.0.0.7",)) as http:
        answer = http.get("/", headers=FORWARDED)
        assert answer.status_code == 200
        addresses = re.findall(r"""(?:src|href)=["'](/[^"']*)""", answer.text)
        assert addresses
        assert all(address.startswith("/rsir/") for address in addresses), addresses
        for address in addresses:
            asked = address.removeprefix("/rsir")  # as the proxy does
            assert http.get(asked, headers=FORWARDED).status_code == 200, address
