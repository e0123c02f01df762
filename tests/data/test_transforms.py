"""Images prepared for a model, and random views for training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsir.data.transforms import Augmentation, InputSpec
from rsir.errors import DataError, UsageError

SPEC = InputSpec(size=4, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3))


def image(height: int, width: int, bands: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (bands, height, width), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(4, 4), (1, 1), (9, 5), (1, 50)])
def test_squash_reaches_the_size_whatever_the_shape(shape: tuple[int, int]) -> None:
    prepared = SPEC.prepare(image(*shape))
    assert prepared.shape == (3, 4, 4)
    assert prepared.dtype == torch.uint8


def test_an_image_of_the_right_size_is_left_alone() -> None:
    pixels = image(4, 4)
    assert np.array_equal(SPEC.prepare(pixels).numpy(), pixels)


def test_read_only_pixels_are_accepted_without_a_warning() -> None:
    pixels = image(4, 4)
    pixels.setflags(write=False)
    assert np.array_equal(SPEC.prepare(pixels).numpy(), pixels)  # warnings are errors here


def test_crop_keeps_the_centre_and_the_shape() -> None:
    pixels = np.zeros((3, 4, 8), np.uint8)
    pixels[:, :, 2:6] = image(4, 4)
    spec = InputSpec(size=4, mean=(0,) * 3, std=(1,) * 3, resize="crop")
    assert np.array_equal(spec.prepare(pixels).numpy(), pixels[:, :, 2:6])


def test_halving_averages_over_the_antialiasing_filter() -> None:
    flat = np.full((3, 8, 8), 77, np.uint8)
    assert (SPEC.prepare(flat) == 77).all()
    # A checkerboard of single pixels must come out grey, not black or white (no aliasing).
    checkers = np.indices((8, 8)).sum(axis=0) % 2 * 255
    prepared = SPEC.prepare(np.stack([checkers] * 3).astype(np.uint8)).float()
    assert ((prepared - 127.5).abs() < 30).all()


def test_normalise_is_per_band() -> None:
    batch = torch.from_numpy(image(4, 4))[None]
    normal = SPEC.normalise(batch)
    for band in range(3):
        expected = (batch[0, band].double() / 255 - SPEC.mean[band]) / SPEC.std[band]
        torch.testing.assert_close(normal[0, band].double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (image(4, 4, bands=4), "takes 3 bands .red, green, blue., the image has 4"),
        (image(4, 4, bands=1), "the image has 1"),
        (image(4, 4).astype(np.float32), "uint8"),
        (image(4, 4)[0], "uint8"),
        (np.zeros((3, 0, 4), np.uint8), "uint8"),
    ],
)
def test_other_bands_are_refused_never_cut(pixels: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        SPEC.prepare(pixels)


@pytest.mark.parametrize("wrong", [{"resize": "stretch"}, {"size": 0}, {"mean": (0.5,)}])
def test_an_impossible_spec_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        InputSpec(**{"size": 4, "mean": (0.5,) * 3, "std": (0.5,) * 3, **wrong})  # type: ignore[arg-type]


def test_a_view_is_fixed_by_its_seed_and_leaves_the_random_state_alone() -> None:
    augment, pixels = Augmentation(), image(64, 64)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(augment(pixels, 8, seed=5), augment(pixels, 8, seed=5))
    assert torch.equal(torch.get_rng_state(), before)
    views = {augment(pixels, 8, seed=s).numpy().tobytes() for s in range(20)}
    assert len(views) == 20


def test_without_crop_a_view_is_one_of_the_eight_turns() -> None:
    pixels = image(6, 6)
    array = torch.from_numpy(pixels)
    turns = [array.rot90(k, (1, 2)) for k in range(4)]
    eight = {t.numpy().tobytes() for turn in turns for t in (turn, turn.flip(2))}
    assert len(eight) == 8
    views = [Augmentation(min_area=1.0)(pixels, 6, seed=s).numpy().tobytes() for s in range(100)]
    assert set(views) == eight
    plain = Augmentation(min_area=1.0, flips=False, quarter_turns=False)
    assert np.array_equal(plain(pixels, 6, seed=3).numpy(), pixels)


def test_a_crop_has_at_least_the_smallest_area() -> None:
    # Each pixel's value is its column: a view's range of values is the width of its crop.
    ramp = np.broadcast_to(np.arange(100, dtype=np.uint8), (3, 100, 100))
    augment = Augmentation(min_area=0.49, flips=False, quarter_turns=False)
    widths = [np.ptp(augment(ramp, 100, seed=s).numpy()) + 1 for s in range(50)]
    assert min(widths) >= 68
    assert max(widths) > 90
    assert min(widths) < 80


@pytest.mark.parametrize("shape", [(60, 250), (250, 60), (1, 50), (7, 3), (1999, 1)])
def test_without_crop_a_view_is_what_search_sees(shape: tuple[int, int]) -> None:
    pixels = image(*shape)
    spec = InputSpec(size=32, mean=(0,) * 3, std=(1,) * 3)
    plain = Augmentation(min_area=1.0, flips=False, quarter_turns=False)
    for seed in range(5):
        assert torch.equal(plain(pixels, 32, seed=seed), spec.prepare(pixels))


@pytest.mark.parametrize(("height", "width"), [(60, 250), (250, 60)])
def test_crops_of_oblong_images_differ_and_have_their_shape(height: int, width: int) -> None:
    # Band 0 holds the row, band 1 the column: their ranges are the sides of the crop.
    rows, columns = np.indices((height, width)).astype(np.uint8)
    pixels = np.stack([rows, columns, rows])
    augment = Augmentation(min_area=0.25, flips=False, quarter_turns=False)
    views = [augment(pixels, 256, seed=s).numpy() for s in range(30)]
    assert len({view.tobytes() for view in views}) == 30
    for view in views:
        tall, wide = (np.ptp(view[band]) + 1 for band in (0, 1))
        assert tall / height == pytest.approx(wide / width, abs=0.03)
        assert 0.48 < tall / height <= 1


def test_a_view_leaves_the_generators_of_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    Augmentation()(image(8, 8), 8, seed=5)
    assert seeds == []


@pytest.mark.parametrize("area", [0.0, -1.0, 1.5])
def test_an_impossible_area_is_refused(area: float) -> None:
    with pytest.raises(UsageError):
        Augmentation(min_area=area)


def test_jitter_multiplies_each_band_and_moves_all_alike() -> None:
    pixels = np.empty((3, 8, 8), np.uint8)
    pixels[:] = np.linspace(90, 160, 64).round().reshape(8, 8)
    augment = Augmentation(min_area=1.0, flips=False, quarter_turns=False, jitter=0.2)
    gains, offsets = [], []
    for seed in range(200):
        view = augment(pixels, 8, seed=seed).double()
        offset: float | None = None
        for band in view:
            gain, moved = np.polyfit(pixels[0].ravel(), band.numpy().ravel(), 1)
            gains.append(gain)
            # Rounding to whole numbers leaves the line within a unit or two.
            offset = moved if offset is None else offset
            assert moved == pytest.approx(offset, abs=3)
            offsets.append(moved / 255)
    assert (min(gains), max(gains)) == pytest.approx((0.8, 1.2), abs=0.02)
    assert (min(offsets), max(offsets)) == pytest.approx((-0.05, 0.05), abs=0.012)
    first = augment(pixels, 8, seed=1)
    assert torch.equal(first, augment(pixels, 8, seed=1))


def test_without_jitter_the_views_are_those_of_no_jitter() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16)).astype(np.uint8)
    for seed in range(20):
        plain = Augmentation()(pixels, 12, seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            jittered = Augmentation(jitter=1e-9)(pixels, 12, seed=seed)
        assert torch.equal(plain, jittered)


@pytest.mark.parametrize("jitter", [-0.1, 1.0, float("nan")])
def test_an_impossible_jitter_is_refused(jitter: float) -> None:
    with pytest.raises(UsageError, match="jitter"):
        Augmentation(jitter=jitter)
