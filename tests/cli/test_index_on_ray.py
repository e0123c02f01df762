"""Options that `rsir index --ray` refuses; tests/archive/test_ray.py tests the indexing."""

import pytest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ray-workers", 2), "--ray-workers goes with --ray ADDRESS"),
        (("--ray-cpus", 2), "--ray-cpus goes with --ray ADDRESS"),
        (("--ray", "local", "--shard", "0/2"), "leave out --shard"),
    ],
)
def test_options_that_do_not_go_together(shell, coloured_classes, tmp_path, options, message):
    done = shell("index", tmp_path / "archive", coloured_classes, "--model", "none", *options)
    assert done.status == 2
    assert message in done.err
    assert not (tmp_path / "archive").exists()


@pytest.mark.usefixtures("ray_installed")
def test_numbers_out_of_range(shell, images, coloured_classes):
    done = shell("index", images, coloured_classes, "--ray", "local", "--ray-gpus", -1)
    assert done.status == 2
    assert "cpus and gpus" in done.err
