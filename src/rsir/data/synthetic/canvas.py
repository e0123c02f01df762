"""The canvas of generated scenes: a window on the ground with its sun, season and shadows.

Lengths are metres on the ground. Sizes and colours are our choice: plausible guesses. A chip is a
window of `size` × `gsd` metres around the origin, rotated by a random angle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from numpy.random import Generator
    from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = tuple[float, float, float]

_FINER = 2  # canvas pixels per chip pixel, averaged at the end: Pillow draws hard edges

# Colour of grass, colour of trees, first (month, day) and number of days, in central Europe.
SEASONS: dict[str, tuple[Colour, Colour, tuple[int, int], int]] = {
    "spring": ((122, 142, 82), (92, 118, 62), (4, 1), 60),
    "summer": ((126, 132, 84), (66, 92, 52), (6, 10), 80),
    "autumn": ((136, 126, 88), (126, 102, 58), (10, 1), 45),
    "winter": ((128, 122, 100), (98, 90, 74), (1, 5), 60),
}
PAINT: tuple[Colour, ...] = (
    (225, 225, 225), (200, 200, 205), (60, 62, 66), (110, 112, 118), (40, 42, 48), (150, 40, 38),
    (50, 75, 130), (190, 190, 180), (80, 90, 80),
)  # fmt: skip


class Canvas:
    """A window on the ground that draws shapes in metres, with one sun, season and seed."""

    def __init__(self, size: int, gsd: float, rng: Generator, season: str) -> None:
        from PIL import Image, ImageDraw

        self.rng = rng
        self.pixels = size * _FINER
        self.metre = _FINER / gsd  # canvas pixels per metre
        self.half = size * gsd / 2
        # Distance from the centre that covers the corners of the rotated square.
        self.reach = self.half * 1.45
        angle = rng.uniform(0, 2 * math.pi)
        self.cos, self.sin = math.cos(angle), math.sin(angle)
        sun = rng.uniform(0, 2 * math.pi)
        self.shade = (math.cos(sun), math.sin(sun))  # unit vector of the shadows
        self.shade_length = rng.uniform(0.4, 1.1)  # metres per metre of height
        grass, trees, _, _ = SEASONS[season]
        self.grass = self.vary(grass, 10)
        self.trees = self.vary(trees, 9)
        self.image: Image.Image = Image.new("RGB", (self.pixels, self.pixels))
        self.draw: ImageDraw.ImageDraw = ImageDraw.Draw(self.image)
        self._shadow = Image.new("L", (self.pixels, self.pixels))
        self._shadow_draw = ImageDraw.Draw(self._shadow)
        self._later: list[Callable[[], None]] = []
        line = (np.arange(self.pixels) + 0.5) / self.metre - self.half
        across, down = np.meshgrid(line, line)
        # Ground coordinates of every canvas pixel: the inverse of `to_pixels`.
        self.x = self.cos * across + self.sin * down
        self.y = -self.sin * across + self.cos * down

    def vary(self, colour: Colour, by: float) -> Colour:
        """The colour with random brightness and a smaller random shift of each channel."""
        light = self.rng.normal(0, by)
        r, g, b = (value + light + self.rng.normal(0, by / 3) for value in colour)
        return r, g, b

    def noise(self, metres: float, octaves: int = 3) -> NDArray[np.float32]:
        """Smooth noise over the canvas, about -1 … 1, with features of `metres` and smaller."""
        from PIL import Image

        total = np.zeros((self.pixels, self.pixels), np.float32)
        for octave in range(octaves):
            cells = max(2, round(2 * self.half / metres * 2**octave) + 1)
            cells = min(cells, self.pixels)
            grid = self.rng.standard_normal((cells, cells)).astype(np.float32)
            smooth = Image.fromarray(grid).resize(total.shape, Image.Resampling.BICUBIC)
            total += np.asarray(smooth) * 0.6 ** (octave + 1)
        return total

    def ground(
        self, colour: Colour, texture: NDArray[np.float32], where: NDArray[np.bool_] | None = None
    ) -> None:
        """Paint the canvas, or `where` only, in a colour plus a texture in levels of brightness."""
        from PIL import Image, ImageDraw

        painted = np.asarray(colour, np.float32) + texture[..., None]
        if where is not None:
            painted = np.where(where[..., None], painted, np.asarray(self.image, np.float32))
        self.image = Image.fromarray(painted.clip(0, 255).astype(np.uint8))
        self.draw = ImageDraw.Draw(self.image)

    def meadow(self) -> None:
        """Paint grass with patches."""
        self.ground(self.grass, 7 * self.noise(25, 4))

    def paved(self, colour: Colour, where: NDArray[np.bool_] | None = None) -> None:
        """Paint asphalt or concrete with stains."""
        self.ground(colour, 4 * self.noise(12, 4), where)

    def to_pixels(self, points: Sequence[Point]) -> list[Point]:
        """Canvas pixels (across, down) of points on the ground."""
        return [
            (
                (self.cos * x - self.sin * y + self.half) * self.metre,
                (self.sin * x + self.cos * y + self.half) * self.metre,
            )
            for x, y in points
        ]

    def polygon(self, points: Sequence[Point], colour: Colour, *, height: float = 0) -> None:
        """Draw a polygon on the ground, or at a height above it with a shadow."""
        corners, fill = self.to_pixels(points), _whole(colour)
        if height == 0:
            self.draw.polygon(corners, fill)
            return
        distance = self.shade_length * height
        dx, dy = self.shade[0] * distance, self.shade[1] * distance
        shadow = [(x + dx, y + dy) for x, y in points]
        self._shadow_draw.polygon(self.to_pixels(shadow), 255)
        for i in range(len(points)):  # the shadow of each wall, from its foot to the roof's shadow
            j = (i + 1) % len(points)
            wall = [points[i], points[j], shadow[j], shadow[i]]
            self._shadow_draw.polygon(self.to_pixels(wall), 255)
        self._later.append(lambda: self.draw.polygon(corners, fill))

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """Draw a line on the ground, at least half a chip pixel wide."""
        pixels = max(1, round(width * self.metre))
        self.draw.line(self.to_pixels(points), _whole(colour), pixels, joint="curve")

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Draw a disc above the ground, without a shadow."""
        ((cx, cy),) = self.to_pixels([(x, y)])
        r, fill = radius * self.metre, _whole(colour)
        box = (cx - r, cy - r, cx + r, cy + r)
        self._later.append(lambda: self.draw.ellipse(box, fill))

    def tree(self, x: float, y: float, radius: float) -> None:
        """Draw the crown of a tree with a lit and a dark side, and its shadow."""
        distance = self.shade_length * radius * 1.6
        sx, sy = self.shade
        ((cx, cy),) = self.to_pixels([(x + sx * distance, y + sy * distance)])
        r = radius * self.metre
        self._shadow_draw.ellipse((cx - r, cy - r, cx + r, cy + r), 255)
        colour = self.vary(self.trees, 9)
        for offset, share, light in ((0.0, 1.0, -24), (-0.18, 0.8, 0), (-0.38, 0.45, 20)):
            shade: Colour = (colour[0] + light, colour[1] + light, colour[2] + light * 0.7)
            self.disc(x + sx * radius * offset, y + sy * radius * offset, radius * share, shade)

    def car(self, x: float, y: float, along: Point, *, length: float = 4.4) -> None:
        """Draw a car, or a lorry from 7 m length, along a unit vector."""
        wide = 1.9 if length < 7 else 2.6
        colour = self.vary(PAINT[self.rng.integers(len(PAINT))], 8)
        self.polygon(box((x, y), along, length, wide), colour, height=1.4 if length < 7 else 3.5)
        if length < 7:
            ax, ay = along
            glass = box((x + ax * 0.7, y + ay * 0.7), along, 0.9, wide * 0.85)
            self.polygon(glass, (38, 44, 52), height=0.1)

    def house(self, at: Point, along: Point, length: float, width: float) -> None:
        """Draw a gabled house; the side of the roof that faces the sun is lighter."""
        roof = self.vary(
            ((150, 92, 74), (128, 84, 70), (110, 106, 104), (88, 84, 84))[self.rng.integers(4)], 10
        )
        ax, ay = along
        facing = -(self.shade[0] * -ay + self.shade[1] * ax)
        self.polygon(box(at, along, length, width), roof, height=self.rng.uniform(5, 8))
        for side in (-1, 1):
            light = 1 + 0.22 * facing * side
            middle = (at[0] - ay * width / 4 * side, at[1] + ax * width / 4 * side)
            tone: Colour = (roof[0] * light, roof[1] * light, roof[2] * light)
            self.polygon(box(middle, along, length, width / 2), tone, height=0.1)

    def scatter_trees(
        self, number: int, where: Callable[[float, float], bool] = lambda x, y: True
    ) -> None:
        """Draw trees at up to `number` random points, those where `where` is true."""
        for _ in range(number):
            x, y = self.rng.uniform(-self.reach, self.reach, 2)
            if where(x, y):
                self.tree(x, y, self.rng.uniform(1.8, 4.2))

    def finish(self, size: int) -> NDArray[np.uint8]:
        """The chip, (3, size, size) uint8, with shadows, raised shapes, haze, blur and noise."""
        from PIL import Image, ImageDraw, ImageFilter

        rng = self.rng
        dark = np.asarray(self._shadow, np.float32)[..., None] / 255 * rng.uniform(0.45, 0.62)
        tint = np.array([1.0, 0.97, 0.88], np.float32)  # blue skylight brightens shadows
        shaded = np.asarray(self.image, np.float32) * (1 - dark * tint)
        self.image = Image.fromarray(shaded.astype(np.uint8))
        self.draw = ImageDraw.Draw(self.image)
        for paint in self._later:
            paint()
        small = self.image.resize((size, size), Image.Resampling.BOX)
        if (blur := rng.uniform(0, 0.7)) > 0.2:
            small = small.filter(ImageFilter.GaussianBlur(blur))
        light = np.asarray(small, np.float32) / 255
        light = light ** rng.uniform(0.85, 1.2) * rng.uniform(0.8, 1.2) * rng.normal(1, 0.03, 3)
        haze = rng.uniform(0, 0.25)
        light = light * (1 - haze) + haze * np.array([0.66, 0.7, 0.75])
        light += rng.normal(0, rng.uniform(0.004, 0.02), light.shape)
        chip = (light.clip(0, 1) * 255).round().astype(np.uint8)
        return np.ascontiguousarray(chip.transpose(2, 0, 1))


def _whole(colour: Colour) -> tuple[int, int, int]:
    r, g, b = (min(255, max(0, round(value))) for value in colour)
    return r, g, b


def box(centre: Point, along: Point, length: float, width: float) -> list[Point]:
    """The corners of a rectangle whose length lies along a unit vector."""
    (x, y), (ax, ay) = centre, along
    long, wide = length / 2, width / 2
    return [
        (x + ax * long * i - ay * wide * j, y + ay * long * i + ax * wide * j)
        for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]
