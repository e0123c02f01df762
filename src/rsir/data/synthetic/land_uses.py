"""Draw the land uses: a function for each class, from the ground up; lengths are metres."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from rsir.data.synthetic.canvas import PAINT, Canvas, Colour, Point, box

LandUse = Literal[
    "airport", "carpark", "field", "forest", "industry", "residential", "road", "water"
]
LAND_USES: tuple[LandUse, ...] = get_args(LandUse)
"""The classes, in alphabetical order."""

_SOIL: tuple[Colour, ...] = ((150, 124, 98), (128, 104, 84), (168, 148, 118))
_X: Point = (1.0, 0.0)
_Y: Point = (0.0, 1.0)


def _field(c: Canvas) -> None:
    rng = c.rng
    c.meadow()
    crops: tuple[Colour, ...] = (c.grass, c.trees, (176, 164, 74), (190, 168, 118), *_SOIL)
    across = np.sort(rng.uniform(-c.half, c.half, rng.integers(0, 3)))
    down = rng.uniform(-c.half, c.half)
    column = np.searchsorted(across, c.x)
    row = (c.y > down + 0.1 * c.x).astype(int) if rng.random() < 0.6 else np.zeros_like(column)
    for parcel in np.unique(column * 2 + row):
        angle = rng.choice([0, math.pi / 2]) + rng.normal(0, 0.05)
        along = c.x * math.cos(angle) + c.y * math.sin(angle)
        rows = np.sin(along * 2 * math.pi / rng.uniform(2.2, 6.5)).astype(np.float32)
        # Tramlines: the wheel tracks of a sprayer, 18 to 27 m apart.
        tracks = np.abs(along % rng.uniform(18, 27) - 3) < 0.9
        texture = rng.uniform(3, 9) * rows + 6 * c.noise(30, 3) - 14 * tracks
        colour = c.vary(crops[rng.integers(len(crops))], 9)
        c.ground(colour, texture.astype(np.float32), column * 2 + row == parcel)
    for x in across:
        edge = [(x, -c.reach), (x, c.reach)]
        if rng.random() < 0.5:
            c.line(edge, c.vary((172, 156, 130), 8), rng.uniform(2.5, 4))
        else:
            c.line(edge, c.vary(c.grass, 8), rng.uniform(1, 3))
            for y in _steps(-c.reach, c.reach, rng.uniform(5, 16)):
                c.tree(x + rng.normal(0, 0.8), y + rng.normal(0, 2), rng.uniform(1.5, 3.5))
    c.scatter_trees(int(rng.integers(0, 4)))


def _forest(c: Canvas) -> None:
    rng = c.rng
    dark = (c.trees[0] * 0.55, c.trees[1] * 0.55, c.trees[2] * 0.6)
    c.ground(dark, 6 * c.noise(10))
    size = rng.uniform(2.0, 4.0)
    thin = c.noise(45, 2)
    gap = rng.uniform(0.9, 2.0)  # a smaller value gives more clearings
    track = rng.random() < 0.35
    bend = rng.normal(0, 0.004)
    clear = thin > gap
    c.ground(c.grass, 6 * c.noise(15), clear)
    if track:
        path = [(x, bend * x * x) for x in _steps(-c.reach, c.reach, 6)]
        c.line(path, c.vary((160, 144, 118), 8), rng.uniform(3, 5))
    step = size * 1.45
    spots = [
        (x + rng.normal(0, step * 0.25), y + rng.normal(0, step * 0.25))
        for x in _steps(-c.reach, c.reach, step)
        for y in _steps(-c.reach, c.reach, step)
    ]
    for i in rng.permutation(len(spots)):
        x, y = spots[i]
        ((px, py),) = c.to_pixels([(x, y)])
        inside = 0 <= px < c.pixels and 0 <= py < c.pixels
        if inside and clear[int(py), int(px)] and rng.random() < 0.93:
            continue
        if max(abs(px - c.pixels / 2), abs(py - c.pixels / 2)) > c.pixels * 0.55:
            continue
        if not (track and abs(y - bend * x * x) < 4):
            c.tree(x, y, size * rng.uniform(0.65, 1.3))


def _water(c: Canvas) -> None:
    rng = c.rng
    c.meadow()
    wave = rng.uniform(0.06, 0.2) * c.half
    river = rng.random() < 0.4
    level = wave * c.noise(2.2 * c.half, 4)
    if river:
        width = rng.uniform(0.35, 0.75) * c.half
        level = np.abs(c.y + level) - width
    else:
        level = c.y + level - rng.uniform(-0.1, 0.75) * c.half
    sand = c.vary((186, 172, 140), 10)
    c.ground(sand, 4 * c.noise(6), level < rng.uniform(1, 6))
    water = level < 0
    hue: tuple[Colour, ...] = (
        (52, 78, 92),
        (40, 66, 72),
        (78, 96, 84),
        (112, 112, 90),
        (58, 92, 112),
    )
    colour = c.vary(hue[rng.integers(len(hue))], 8)
    deep = 18 * np.exp(level.clip(-60, 0) / 6) - 9
    ripple = np.sin((c.x * 0.6 + c.y * 0.8 + 2 * c.noise(9, 2)) * 2 * math.pi / rng.uniform(3, 7))
    texture = deep + rng.uniform(0.5, 4) * ripple + 3 * c.noise(30, 3)
    c.ground(colour, texture.astype(np.float32), water)
    foam = water & (level > -rng.uniform(0.3, 1.6)) & (c.noise(5, 2) > 0)
    c.ground((205, 208, 204), 3 * c.noise(4), foam)

    def on(in_water: bool, margin: float) -> Callable[[float, float], bool]:
        def test(x: float, y: float) -> bool:
            ((px, py),) = c.to_pixels([(x, y)])
            if not (0 <= px < c.pixels and 0 <= py < c.pixels):
                return False
            height = level[int(py), int(px)]
            return bool(height < -margin if in_water else height > margin)

        return test

    c.scatter_trees(int(rng.integers(10, 90)), on(False, 4))
    for _ in range(int(rng.integers(0, 4))):
        x, y = rng.uniform(-c.half, c.half, 2)
        if on(True, 6)(x, y):
            length = rng.uniform(5, 12)
            c.line([(x - 3 * length, y), (x, y)], (200, 210, 214), 1.2)
            hull = [*box((x, y), _X, length, length * 0.3), (x + length * 0.8, y)]
            c.polygon([hull[0], hull[1], hull[4], hull[2], hull[3]], (232, 232, 228), height=1.5)


def _residential(c: Canvas) -> None:
    rng = c.rng
    c.meadow()
    block, plot = rng.uniform(44, 60), rng.uniform(14, 21)
    street = rng.uniform(5.5, 8)
    asphalt = c.vary((122, 120, 118), 10)
    start = -c.reach - rng.uniform(0, block)
    rows = _steps(start, c.reach + block, block)
    bend = rng.normal(0, 0.0012)

    def road(x: float, y: float) -> Point:
        return x, y + bend * x * x

    crossing = rng.uniform(-c.half, c.half)
    for y in rows:
        path = [road(x, y) for x in _steps(-c.reach, c.reach + 8, 8)]
        c.line(path, (178, 174, 168), street + 3)
    c.line([(crossing, -c.reach), (crossing, c.reach)], (178, 174, 168), street + 3)
    for y in rows:
        c.line([road(x, y) for x in _steps(-c.reach, c.reach + 8, 8)], asphalt, street)
    c.line([(crossing, -c.reach), (crossing, c.reach)], asphalt, street)
    for y in rows:
        for side in (-1, 1):
            for x in _steps(-c.reach + rng.uniform(0, plot), c.reach, plot):
                if abs(x - crossing) < street / 2 + plot / 2:
                    continue
                back = rng.uniform(10, 13.5) + street / 2
                cx, cy = road(x + rng.normal(0, 0.8), y + side * back)
                kerb = road(x + plot * 0.32, y + side * street / 2)
                drive = [kerb, (kerb[0], cy)]
                c.line(drive, c.vary((172, 168, 160), 8), 3)
                if rng.random() < 0.5:
                    c.car(kerb[0], kerb[1] + side * 4, _Y)
                if rng.random() < 0.93:
                    long, deep = rng.uniform(9, min(14, plot * 0.75)), rng.uniform(7.5, 10)
                    c.house((cx, cy), _X if rng.random() < 0.75 else _Y, long, deep)
                if rng.random() < 0.12:
                    pool = box((cx, cy + side * 9.5), _X, 6, 3)
                    c.polygon(pool, (110, 180, 196))
                for _ in range(int(rng.integers(0, 4))):
                    tx = cx + rng.uniform(-plot / 2, plot / 2)
                    c.tree(tx, cy + side * rng.uniform(7, 12), rng.uniform(1.3, 3.2))
        for x in _steps(-c.reach, c.reach, rng.uniform(12, 30)):
            if rng.random() < 0.6:
                c.car(*road(x, y + street * 0.33), _X)


def _industry(c: Canvas) -> None:
    rng = c.rng
    c.paved(c.vary((146, 142, 136), 14))
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.uniform(-c.reach, c.reach, 2)
        c.polygon(box((x, y), _X, rng.uniform(15, 50), rng.uniform(6, 18)), c.vary(c.grass, 8))
    c.scatter_trees(int(rng.integers(0, 14)))  # first, so that the halls cover them
    roofs: tuple[Colour, ...] = (
        (205, 205, 202), (176, 178, 180), (148, 152, 156), (120, 130, 142), (196, 186, 170),
        (156, 112, 96),
    )  # fmt: skip
    pitch_y = rng.uniform(42, 62)
    for y in _steps(-c.reach - rng.uniform(0, pitch_y), c.reach + pitch_y, pitch_y):
        x = -c.reach - rng.uniform(0, 60)
        while x < c.reach + 40:
            length, width = rng.uniform(32, 85), pitch_y - rng.uniform(12, 22)
            centre = (x + length / 2, y)
            x += length + rng.uniform(9, 24)
            if rng.random() < 0.12:
                continue
            roof = c.vary(roofs[rng.integers(len(roofs))], 9)
            c.polygon(box(centre, _X, length, width), roof, height=rng.uniform(8, 14))
            seam: Colour = (roof[0] - 14, roof[1] - 14, roof[2] - 14)
            for step in _steps(-length / 2 + 3, length / 2, rng.uniform(4, 8)):
                strip = box((centre[0] + step, y), _Y, width, 0.7)
                c.polygon(strip, seam, height=0.1)
            for row in (-0.27, 0.27) if rng.random() < 0.6 else ():
                for step in _steps(-length / 2 + 5, length / 2 - 4, rng.uniform(7, 12)):
                    light = box((centre[0] + step, y + row * width), _Y, 6, 1.7)
                    c.polygon(light, (98, 112, 124), height=0.1)
            for _ in range(int(rng.integers(0, 6))):
                dx, dy = rng.uniform(-0.4, 0.4) * length, rng.uniform(-0.35, 0.35) * width
                unit = centre[0] + dx, y + dy
                c.polygon(box(unit, _X, 2.6, 2.2), (222, 222, 220), height=0.1)
            for step in _steps(-length / 2 + 3, length / 2 - 2, rng.uniform(4, 9)):
                if rng.random() < 0.5:
                    c.car(centre[0] + step, y + width / 2 + 7, _Y, length=rng.uniform(8, 14))


def _carpark(c: Canvas) -> None:
    rng = c.rng
    c.meadow()
    lot = c.half * rng.uniform(0.75, 1.5)
    inside = np.abs(c.y) < lot
    asphalt = c.vary((108, 107, 106) if rng.random() < 0.7 else (160, 156, 148), 14)
    c.paved(asphalt, inside)
    full = rng.uniform(0.35, 0.95)
    bay, deep, aisle = 2.55, 5.0, rng.uniform(5.8, 7.2)
    module = 2 * deep + aisle
    white = (214, 214, 208)
    islands = rng.random() < 0.6
    for y in _steps(-lot + aisle, lot - 2 * deep, module):
        c.line([(-c.reach, y + deep), (c.reach, y + deep)], white, 0.25)
        for k, x in enumerate(_steps(-c.reach, c.reach, bay)):
            c.line([(x, y), (x, y + 2 * deep)], white, 0.25)
            middle = x + bay / 2
            if islands and k % 14 == 0:
                c.polygon(box((middle, y + deep), _Y, 2 * deep, bay), c.grass)
                for row in (0.5, 1.5):
                    c.tree(middle, y + row * deep, rng.uniform(1.6, 2.6))
                continue
            for row in (0.5, 1.5):
                if rng.random() < full:
                    at = y + row * deep + rng.normal(0, 0.2)
                    c.car(middle, at, _Y if rng.random() < 0.5 else (0.0, -1.0))
        if rng.random() < 0.7:
            c.car(rng.uniform(-c.half, c.half), y - aisle / 2, _X)
    c.scatter_trees(int(rng.integers(4, 30)), lambda x, y: abs(y) > lot + 4)
    if rng.random() < 0.35:
        shop = box((0, lot + 24), _X, 90, 34)
        c.polygon(shop, c.vary((190, 188, 184), 14), height=9)


def _road(c: Canvas) -> None:
    rng = c.rng
    c.meadow()
    for side in (-1, 1):
        if rng.random() < 0.6:
            beyond = c.y * side > rng.uniform(24, 38)
            rows = np.sin(c.x * 2 * math.pi / rng.uniform(2.5, 6)).astype(np.float32)
            soil = (*_SOIL, c.trees, c.grass)[rng.integers(5)]
            c.ground(c.vary(soil, 8), 5 * rows + 5 * c.noise(25), beyond)
    lanes, lane = int(rng.integers(1, 4)), 3.6
    bend = rng.normal(0, 0.0022)
    middle = rng.normal(0, c.half * 0.15)
    asphalt = c.vary((112, 111, 112) if rng.random() < 0.65 else (168, 164, 156), 12)
    white = (226, 226, 220)
    span = _steps(-c.reach - 8, c.reach + 8, 4)

    def path(offset: float) -> list[Point]:
        return [(x, middle + bend * x * x + offset) for x in span]

    dual = lanes > 1
    gap = rng.uniform(2, 7) if dual else 0.0
    carriageways = (-1, 1) if dual else (0,)
    wide = lanes * lane + 2.5 if dual else 2 * lane + 1
    if rng.random() < 0.3:  # a road that passes below
        x = rng.uniform(-c.half / 2, c.half / 2)
        c.line([(x, -c.reach), (x + 12, c.reach)], asphalt, 7.5)
        c.line([(x, -c.reach), (x + 12, c.reach)], white, 0.3)
    for direction in carriageways:
        centre = direction * (gap / 2 + wide / 2)
        c.line(path(centre), c.vary((150, 142, 122), 6), wide + 2.5)
        c.line(path(centre), asphalt, wide)
        for edge in (-1, 1):
            c.line(path(centre + edge * (wide / 2 - 0.7)), white, 0.35)
        count = lanes if dual else 2
        for k in range(1, count):
            offset = centre + (k - count / 2) * lane
            dashes = path(offset)
            for i in range(0, len(dashes) - 1, 3):
                c.line(dashes[i : i + 2], white, 0.35)
        for _ in range(int(rng.integers(1, 3 + 3 * count))):
            k = int(rng.integers(count))
            x = rng.uniform(-c.reach, c.reach)
            slope = 2 * bend * x
            norm = math.hypot(1, slope)
            y = middle + bend * x * x + centre + (k + 0.5 - count / 2) * lane
            length = 4.4 if rng.random() < 0.8 else rng.uniform(9, 16)
            c.car(x, y, (1 / norm, slope / norm), length=length)
    verge = (gap + 2 * wide) / 2 + 7 if dual else wide / 2 + 6
    spots = int(rng.integers(5, 80))
    c.scatter_trees(spots, lambda x, y: verge < abs(y - middle - bend * x * x) < verge + 25)


def _aeroplane(c: Canvas, at: Point, heading: float, length: float) -> None:
    fx, fy = math.cos(heading), math.sin(heading)

    def spot(along: float, side: float) -> Point:
        return (
            at[0] + length * (fx * along - fy * side), at[1] + length * (fy * along + fx * side),
        )  # fmt: skip

    body = c.vary((228, 229, 230), 6)
    wing: Colour = (body[0] - 22, body[1] - 20, body[2] - 16)
    accent = PAINT[c.rng.integers(5, 7)]
    for side in (-1, 1):
        c.polygon(
            [spot(0.12, side * 0.04), spot(-0.14, side * 0.47), spot(-0.2, side * 0.47),
             spot(-0.08, side * 0.04)], wing, height=4,
        )  # fmt: skip
        c.polygon(
            [spot(-0.38, 0), spot(-0.47, side * 0.18), spot(-0.5, side * 0.18), spot(-0.46, 0)],
            wing, height=4,
        )  # fmt: skip
        engine = box(spot(0.03, side * 0.17), (fx, fy), length * 0.1, length * 0.045)
        c.polygon(engine, (150, 152, 156), height=3)
    nose = [(0.5, 0.0), (0.44, 0.04), (-0.3, 0.05), (-0.5, 0.012)]
    outline = [spot(a, s) for a, s in nose] + [spot(a, -s) for a, s in reversed(nose)]
    c.polygon(outline, body, height=5)
    c.polygon(box(spot(-0.43, 0), (fx, fy), length * 0.13, length * 0.014), accent, height=0.1)


def _airport(c: Canvas) -> None:
    rng = c.rng
    c.meadow()
    tarmac = c.vary((162, 160, 154) if rng.random() < 0.55 else (112, 112, 112), 12)
    yellow, white = (206, 178, 70), (228, 228, 224)
    length = rng.uniform(24, 40)
    if rng.random() < 0.55:  # an apron with stands
        edge = rng.uniform(-0.2, 0.3) * c.half
        c.paved(tarmac, c.y < edge + length * 1.1)
        for x in _steps(-c.reach, c.reach, 7.5):
            c.line(
                [(x, -c.reach), (x, edge + length)],
                (tarmac[0] - 9, tarmac[1] - 9, tarmac[2] - 9),
                0.4,
            )
        taxi = edge - length * 1.15
        c.line([(-c.reach, taxi), (c.reach, taxi)], yellow, 0.6)
        pitch = length * rng.uniform(1.05, 1.35)
        first = rng.uniform(-0.3, 0.3) * c.half  # at least one aeroplane is in view
        stands = int(c.reach / pitch) + 1
        for stand in range(-stands, stands + 1):
            x = first + stand * pitch
            c.line([(x, taxi), (x, edge + length * 0.4)], yellow, 0.6)
            if stand == 0 or rng.random() < 0.75:
                _aeroplane(c, (x, edge), math.pi / 2, length * rng.uniform(0.8, 1.05))
            for _ in range(int(rng.integers(0, 4))):
                c.car(x + rng.uniform(4, 9), edge + length * rng.uniform(0.2, 0.55), _X)
        terminal = box((0, edge + length * 0.62 + 20), _X, 2.2 * c.reach, 34)
        c.polygon(terminal, c.vary((178, 180, 182), 12), height=12)
        if rng.random() < 0.6:
            _aeroplane(c, (rng.uniform(-c.half, c.half) * 0.7, taxi), 0.0, length * 0.9)
    else:  # a runway with a taxiway beside it
        middle, wide = rng.normal(0, 0.2) * c.half, rng.uniform(28, 42)
        c.paved(tarmac, np.abs(c.y - middle) < wide / 2)
        for edge in (-1, 1):
            y = middle + edge * (wide / 2 - 1.6)
            c.line([(-c.reach, y), (c.reach, y)], white, 0.9)
        for x in _steps(-c.reach, c.reach, 22):
            c.line([(x, middle), (x + 13, middle)], white, 0.9)
        if rng.random() < 0.6:  # threshold: a row of stripes across
            x = rng.uniform(-0.6, 0.2) * c.half
            for y in _steps(-wide / 2 + 3.5, wide / 2 - 3, 3.4):
                if abs(y) > 1.5:
                    c.line([(x, middle + y), (x + 24, middle + y)], white, 1.7)
        beside = middle + rng.choice([-1, 1]) * (wide / 2 + rng.uniform(22, 30))
        c.paved(tarmac, np.abs(c.y - beside) < 8.5)
        link = rng.uniform(-c.half, c.half)
        toward = [(link, beside), (link + 20, middle)]
        c.line(toward, tarmac, 15)
        c.line([(-c.reach, beside), (c.reach, beside)], yellow, 0.6)
        c.line(toward, yellow, 0.6)
        _aeroplane(c, (rng.uniform(-c.half, c.half) * 0.7, beside), 0.0, length)
        if rng.random() < 0.4:
            _aeroplane(c, (rng.uniform(-c.half, c.half) * 0.7, middle), math.pi, length)


DRAWERS: dict[LandUse, Callable[[Canvas], None]] = {
    "airport": _airport,
    "carpark": _carpark,
    "field": _field,
    "forest": _forest,
    "industry": _industry,
    "residential": _residential,
    "road": _road,
    "water": _water,
}


def _steps(start: float, stop: float, step: float) -> list[float]:
    return [float(value) for value in np.arange(start, stop, step)]
