"""Curves as SVG text, for pages that must stand without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 30, 34, 44
COLOURS = ("#2d6ccd", "#d9730d", "#2a9d6f", "#b0419b", "#7a6ff0", "#8a6d3b")

Points = Sequence[tuple[float, float]]


def line_chart(series: Mapping[str, Points], x: str = "", y: str = "") -> str:
    """An SVG element: name to points (x, y); points that are not finite leave a gap.

    Colours beyond the first six repeat; text takes the colour of the page.
    """
    finite = [p for points in series.values() for p in points if _finite(p)]
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" xmlns="http://www.w3.org/2000/svg" '
        f'font-family="inherit" font-size="12" aria-label="{escape(y)} over {escape(x)}">'
    ]
    if not finite:
        parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT / 2}" text-anchor="middle" '
                     'fill="currentColor">no finite values</text></svg>')  # fmt: skip
        return "".join(parts)
    across = _ticks(min(p[0] for p in finite), max(p[0] for p in finite))
    up = _ticks(min(p[1] for p in finite), max(p[1] for p in finite))
    parts += _axes(across, up, x, y)
    for place, (name, points) in enumerate(series.items()):
        colour = COLOURS[place % len(COLOURS)]
        parts += _curve(points, across, up, colour)
        parts.append(_key(name, place, len(series), colour))
    return "".join([*parts, "</svg>"])


def _finite(point: tuple[float, float]) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1])


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover low to high: the first is at most low, the last at least high."""
    if high <= low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def _place(value: float, ticks: Sequence[float], start: float, end: float) -> float:
    return start + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (end - start)


def _across(value: float, ticks: Sequence[float]) -> float:
    return _place(value, ticks, _LEFT, WIDTH - _RIGHT)


def _up(value: float, ticks: Sequence[float]) -> float:
    return _place(value, ticks, HEIGHT - _BOTTOM, _TOP)


def _axes(across: Sequence[float], up: Sequence[float], x: str, y: str) -> list[str]:
    parts = ['<g stroke="currentColor" stroke-opacity="0.14">']
    parts += [f'<path d="M{_LEFT} {_up(t, up):.1f}H{WIDTH - _RIGHT}"/>' for t in up]
    parts.append('</g><g fill="currentColor" fill-opacity="0.65">')
    for tick in up:
        parts.append(
            f'<text x="{_LEFT - 8}" y="{_up(tick, up) + 4:.1f}" text-anchor="end">{tick:.4g}</text>'
        )
    below = HEIGHT - _BOTTOM + 18
    for tick in across:
        label = f"{tick:,.0f}" if abs(tick) >= 1000 else f"{tick:.4g}"
        at = _across(tick, across)
        parts.append(f'<text x="{at:.1f}" y="{below}" text-anchor="middle">{label}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x)}</text>'
        f'<text x="4" y="14">{escape(y)}</text></g>'
    )
    return parts


def _curve(points: Points, across: Sequence[float], up: Sequence[float], colour: str) -> list[str]:
    parts, path, alone = [], "", True
    for place, point in enumerate(points):
        if not _finite(point):
            alone = True
            continue
        at = f"{_across(point[0], across):.1f} {_up(point[1], up):.1f}"
        path += f"{'M' if alone else 'L'}{at}"
        followed = place + 1 < len(points) and _finite(points[place + 1])
        if alone and not followed:  # a point between gaps has no line to show it
            x, y = at.split()
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>')
        alone = False
    if path:
        parts.append(
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2" '
            'stroke-linejoin="round"/>'
        )
    return parts


def _key(name: str, place: int, count: int, colour: str) -> str:
    width = min(150.0, (WIDTH - _LEFT - _RIGHT - 120) / count)
    at = WIDTH - _RIGHT - (count - place) * width
    return (
        f'<rect x="{at:.1f}" y="8" width="14" height="4" rx="2" fill="{colour}"/>'
        f'<text x="{at + 20:.1f}" y="14" fill="currentColor">{escape(name)}</text>'
    )
