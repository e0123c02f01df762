"""Which image files are found in folders, and under which names."""

from __future__ import annotations

from collections import Counter

import pytest

from rsir.errors import DataError
from rsir.sources.folders import SUFFIXES, find_images


def test_find_images(tmp_path):
    for name in ("b.PNG", "a.jpg", "sub/deep/c.TIFF", "sub/d.webp", "notes.txt", "sub/e.TXT",
                 "none", ".hidden.png", ".git/f.png", "odd.dat"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere")
    found, others = find_images([tmp_path, tmp_path / "sub", tmp_path / "odd.dat"])
    names = [path.relative_to(tmp_path).as_posix() for path in found]
    assert names == ["a.jpg", "b.PNG", "odd.dat", "sub/d.webp", "sub/deep/c.TIFF"]
    assert others == {".txt": 2, "": 1, ".dat": 1}
    assert find_images([]) == ([], Counter())
    with pytest.raises(DataError, match=r"missing: no such file or folder"):
        find_images([tmp_path / "missing"])
    assert all(suffix == suffix.lower() for suffix in SUFFIXES)


@pytest.mark.parametrize("link", ["0", "z", "deep/z", "m/z"])
def test_a_folder_keeps_its_own_name_whatever_links_to_it(tmp_path, link):
    for name in ("a/1.png", "m/sub/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    wanted = find_images([tmp_path])
    assert [path.relative_to(tmp_path).as_posix() for path in wanted[0]] == [
        "a/1.png",
        "m/sub/2.png",
    ]
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "other").symlink_to(tmp_path / "m", target_is_directory=True)
    assert find_images([tmp_path]) == wanted
    # This holds too for links that are named themselves or lie in a folder that comes first.
    starts = [tmp_path / link, (tmp_path / link).parent, tmp_path / "a", tmp_path]
    assert find_images(starts) == wanted
    alone, _ = find_images([tmp_path / link])
    assert alone == [tmp_path / link / "1.png"]


def test_find_images_leaves_out_a_folder(tmp_path):
    for name in ("a.png", "own/b.png", "own/deep/c.png", "own/about.json", "owned/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    own = tmp_path / "own"
    (tmp_path / "other name").symlink_to(own, target_is_directory=True)
    wanted = ([tmp_path / "a.png", tmp_path / "owned" / "d.png"], Counter())
    assert find_images([tmp_path], exclude=own) == wanted
    assert find_images([tmp_path], exclude=tmp_path / "other name") == wanted
    within = [own, own / "b.png", own / "deep", tmp_path / "other name" / "deep" / "c.png"]
    assert find_images(within, exclude=own) == ([], Counter())
    assert find_images([tmp_path], exclude=tmp_path / "absent") == find_images([tmp_path])
