"""Self-contained HTML pages for reports: tables, bars and SVG plots, light and dark, wide and narrow; no script."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Point", "Series", "bars", "document", "four_digits", "plot", "table"]

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --good: #1a7f37; --bad: #cf222e;
  --c0: #0969da; --c1: #bc4c00; --c2: #1a7f37; --c3: #8250df; --c4: #9a6700; --c5: #6e7781; }
@media (prefers-color-scheme: dark) { :root { --good: #3fb950; --bad: #f85149;
  --c0: #58a6ff; --c1: #f0883e; --c2: #3fb950; --c3: #bc8cff; --c4: #d29922; --c5: #8b949e; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
th, td { text-align: left; padding: .15rem .9rem .15rem 0; border-bottom: 1px solid var(--line); }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.good { color: var(--good); } .bad { color: var(--bad); }
img { width: 13rem; image-rendering: pixelated; } figure { display: inline-block; margin: 0 .7rem .7rem 0; }
.wide { overflow-x: auto; } svg { width: 100%; height: auto; }
svg text { fill: currentColor; font-size: 12px; }
.bars { max-width: 48rem; } .bars div { display: flex; gap: .6rem; margin: .2rem 0; }
.name { flex: 0 0 18rem; text-align: right; overflow-wrap: anywhere; }
.bar { flex: 1; display: flex; align-items: center; gap: .5rem; }
.bar::before { content: ""; flex: none; height: 1rem; min-width: 1px; background: var(--colour);
  width: calc(var(--share) * (100% - 9rem)); }
@media (max-width: 40rem) { body { font-size: 14px; margin: 1rem auto; } img { width: 7rem; }
  .bars div { display: block; } .name { text-align: left; }
  .many thead { display: none; } .many, .many tbody, .many tr { display: block; }
  .many tr { border-bottom: 1px solid var(--line); padding: .4rem 0; }
  .many td { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: 0; text-align: right; }
  .many td:first-child { font-weight: 600; } .many td:empty { display: none; }
  .many td::before { content: attr(data-head); font-weight: 400; text-align: left; } }
details table { font-size: 13px; }
"""

_COLOURS = 6
_MANY = 4
"""Columns, above which a narrow page shows each row as a list."""

_NUMBER = re.compile(r"[-+]?\d[\d.,]*(e[-+]?\d+)?(( to |, )\d[\d.,]*(e[-+]?\d+)?)*( ?[\w%/]{1,8})?|nan|-?inf")
"""A number, a span or a list of some, with or without a unit."""


def document(title: str, parts: Iterable[str]) -> str:
    """A whole page. `parts` are HTML."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "\n".join(parts)
    return f"<!doctype html>\n<html lang='en'><head>{head}<style>{_STYLE}</style></head>\n<body>{body}</body></html>\n"


def table(head: Iterable[str], rows: Iterable[Iterable[object]], *, raw: bool = False, numbers: bool = True) -> str:
    """A table. raw : cells are HTML already; numbers : numbers, with or without a unit, stand to the right."""
    heads = list(head)

    def cell(name: str, value: object) -> str:
        text = str(value)
        number = " class=n" if numbers and _NUMBER.fullmatch(text) else ""
        return f'<td{number} data-head="{escape(name)}">{text if raw else escape(text)}</td>'

    body = "".join(f"<tr>{''.join(map(cell, heads, row))}</tr>" for row in rows)
    top = "".join(f"<th>{escape(name)}</th>" for name in heads)
    kind = " class=many" if len(heads) > _MANY else ""
    return f'<div class="wide"><table{kind}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def bars(label: str, rows: Sequence[tuple[str, float, str]], *, colours: Sequence[int] | None = None) -> str:
    """Horizontal bars: (name, length, what is said at its end). colours : one a row, 0 to 5."""
    if not rows:
        return ""
    longest = max(value for _, value, _ in rows) or 1.0
    drawn = []
    for index, (name, value, text) in enumerate(rows):
        colour = 0 if colours is None else colours[index] % _COLOURS
        style = f"--share: {value / longest:.4f}; --colour: var(--c{colour})"
        drawn.append(
            f'<div><span class="name">{escape(name)}</span>'
            f'<span class="bar" style="{style}">{escape(text)}</span></div>'
        )
    return f'<div class="bars" role="group" aria-label="{escape(label)}">{"".join(drawn)}</div>'


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A point of a plot; `said` is written beside it, or only shown under the pointer where `quiet`."""

    x: float
    y: float
    said: str = ""
    quiet: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points of one colour, as a line or as dots."""

    name: str
    points: Sequence[Point]
    line: bool = True
    colour: int = 0


def plot(
    label: str,
    series: Sequence[Series],
    *,
    x_title: str,
    y_title: str,
    x_log: bool = False,
    y_log: bool = False,
    zero: bool = True,
) -> str:
    """A plot with a grid and a legend. zero : a linear y axis begins at 0 unless values are below it."""
    every = [p for s in series for p in s.points if _finite(p)]
    if not every:
        return ""
    width, height, left, bottom, top = _PLOT
    x_place, x_ticks = _axis([p.x for p in every], left, width - 20, log=x_log, zero=False)
    y_place, y_ticks = _axis([p.y for p in every], height - bottom, top, log=y_log, zero=zero)
    drawn = _grid(y_ticks, y_place, x_ticks, x_place)
    drawn.append(f'<text x="{(left + width) / 2:.0f}" y="{height - 6}" text-anchor="middle">{escape(x_title)}</text>')
    middle = (height - bottom) / 2
    drawn.append(
        f'<text x="14" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 14 {middle:.0f})">'
        f"{escape(y_title)}</text>"
    )
    labels: list[tuple[float, float, str]] = []
    for one in series:
        colour = f"var(--c{one.colour % _COLOURS})"
        places = [(x_place(p.x), y_place(p.y), p) for p in one.points if _finite(p)]
        if one.line:
            joined = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
            drawn.append(f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>')
        else:
            drawn += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{escape(p.said)}</title></circle>'
                for x, y, p in places
            ]
        labels += [(x, y, "" if p.quiet else p.said) for x, y, p in places]
    drawn += _labels(labels, width)
    keys = [(one.colour % _COLOURS, escape(one.name)) for one in series if one.name]
    legend = " ".join(f'<span style="color:var(--c{colour})">&#9632; {name}</span>' for colour, name in keys)
    return _svg(label, drawn) + (f"<p>{legend}</p>" if len(keys) > 1 else "")


_PLOT = (480, 300, 60, 44, 12)
"""Width, height, and the margins at the left, at the bottom and at the top; a telephone shows its letters in 10 px."""
_WIDEST = 680
"""Pixels that a plot is wide at most."""

Place = Callable[[float], float]


def _svg(label: str, drawn: Iterable[str]) -> str:
    width, height, *_ = _PLOT
    return (
        f'<div class="wide"><svg viewBox="0 0 {width} {height}" style="max-width: {_WIDEST}px" role="img" '
        f'aria-label="{escape(label)}">{"".join(drawn)}</svg></div>'
    )


def _grid(y_ticks: Sequence[float], y_place: Place, x_ticks: Sequence[float], x_place: Place) -> list[str]:
    """Lines across, and the numbers of both axes."""
    width, height, left, bottom, _top = _PLOT
    drawn = []
    for value in y_ticks:
        y = y_place(value)
        drawn.append(f'<line x1="{left}" x2="{width - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>')
        drawn.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>')
    for value in x_ticks:
        place = f'x="{x_place(value):.1f}" y="{height - bottom + 16}"'
        drawn.append(f'<text {place} text-anchor="middle">{_number(value)}</text>')
    return drawn


def _finite(point: Point) -> bool:
    return math.isfinite(point.x) and math.isfinite(point.y)


def _labels(places: Sequence[tuple[float, float, str]], width: float) -> Iterator[str]:
    """What is said beside points, each moved down until it covers none before it."""
    taken: list[tuple[float, float, float]] = []
    for x, y, text in sorted(places, key=lambda p: p[1]):
        if not text:
            continue
        length = 7 * len(text)
        left = x - 7 - length if x + 7 + length > width - 20 else x + 7
        row = y + 4
        while any(left < other + size and other < left + length and abs(row - at) < 11 for other, size, at in taken):
            row += 11
        taken.append((left, length, row))
        yield f'<text x="{left:.1f}" y="{row:.1f}">{escape(text)}</text>'


def _axis(
    values: Sequence[float], start: float, end: float, *, log: bool, zero: bool
) -> tuple[Callable[[float], float], list[float]]:
    """Place of a value between `start` and `end`, and the ticks."""
    low, high = min(values), max(values)
    if log:
        tiny = min((v for v in values if v > 0), default=1.0)
        first, last = math.floor(math.log10(tiny)), math.ceil(math.log10(max(high, tiny)))
        last = max(last, first + 1)
        return (
            lambda v: start + (end - start) * (math.log10(max(v, 10.0**first)) - first) / (last - first),
            [10.0**n for n in range(first, last + 1)],
        )
    if zero:
        low = min(low, 0.0)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 5)
    first_tick = math.floor(low / step) if zero else math.ceil(low / step)
    ticks = [n * step for n in range(first_tick, math.ceil(high / step) + 1)]
    ticks = [t for t in ticks if zero or low <= t <= high]
    bottom, top = (min(ticks[0], low), max(ticks[-1], high)) if zero and ticks else (low, high)
    return lambda v: start + (end - start) * (v - bottom) / (top - bottom), ticks


def four_digits(value: float) -> str:
    """Four digits that count, and all of a larger number's: never a power of ten for what a table can hold."""
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def _number(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 1e5 or abs(value) < 1e-3:
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    return f"{value:.4g}"
