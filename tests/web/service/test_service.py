"""The service: the memory of its thumbnails, and the names of its archives."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from rsir.errors import RsirError, UsageError
from rsir.web.app import create_app
from rsir.web.service.service import open_archives
from tests.web.served import World, settings


@pytest.mark.slow
def test_thumbnails_stay_within_their_memory(world: World) -> None:
    app = create_app({"land": world.land}, settings(world, thumbnail_bytes=9000), page=False)
    with TestClient(app) as http:
        for record in world.land.records():
            for size in (32, 64, 100):
                path = f"/api/archives/land/items/{record.id}/thumbnail"
                assert http.get(path, params={"size": size}).status_code == 200
    thumbnails = app.state.service._thumbnails
    assert 0 < thumbnails.currsize <= 9000
    assert sum(map(len, thumbnails.values())) == thumbnails.currsize


def test_names_of_archives(world: World) -> None:
    path = world.land.path
    assert list(open_archives([path])) == ["land"]
    assert list(open_archives([f"x.y-1={path}", path])) == ["x.y-1", "land"]
    for wrong in (f"../x={path}", f"={path}", f".x={path}"):
        with pytest.raises(RsirError):
            open_archives([wrong])
    with pytest.raises(UsageError, match="two archives"):
        open_archives([path, f"land={path}"])
