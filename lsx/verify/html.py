"""report.html: one file that needs no other. Pictures are embedded, curves are SVG, both colour schemes are served."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from html import escape
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lsx.core.graph_names import GRAPH_WORDS
from lsx.metrics.arrays import ArrayError
from lsx.reporting.html import Point, Series, document, plot, table
from lsx.verify.report import Report, WorstFrame

__all__ = ["report_html"]

_AMPLIFIED = 8
_HIGHEST = 140.0  # dB shown


def report_html(report: Report, quantization: Mapping[str, Any] | None = None) -> str:
    """The page. quantization : the bundle's layers.json, where it has one."""
    verdict = '<b class="good">passed</b>' if report.passed else '<b class="bad">failed</b>'
    parts = [
        f"<h1>lsx verify: {verdict}</h1>",
        f"<p>{escape(report.bundle)}<br>{escape(report.model)}, {report.precision}, {escape(report.engine)}<br>",
        f"compared on {escape(report.source)}: {escape(_options(report.options))}</p>",
        _verdict(report),
        "<h2>Graphs, on the reference's own inputs</h2>",
        table(
            ("graph", "what it does", "output", "forwards", "cosine", "max error", "mean error", "SNR dB"),
            ((r.graph, GRAPH_WORDS.get(r.graph, ""), r.output, r.forwards, *_cells(r.figures)) for r in report.graphs),
        ),
        "<h2>Drift of the latents over the steps</h2>",
        _curve([figures.snr for figures in report.drift]),
        "<h2>One-step clean estimates of four frames, inside the mask</h2>",
        table(
            ("step", "t", "PSNR dB", "SSIM"),
            ((e.step + 1, e.timestep, f"{e.psnr:.2f}", f"{e.ssim:.4f}") for e in report.estimates),
        ),
    ]
    if report.clip is not None:
        c = report.clip
        rows = (
            ("mouth", f"{c.mouth_psnr:.2f}", f"{c.mouth_ssim:.4f}"),
            ("face", f"{c.face_psnr:.2f}", f"{c.face_ssim:.4f}"),
        )
        parts += [f"<h2>{c.frames} frames</h2>", table(("", "PSNR dB", "SSIM"), rows)]
        parts.append(f"<p>The change from frame to frame inside the mask is {c.temporal:.2f} levels off.</p>")
        parts += [f"<p>{escape(line)}</p>" for line in c.lines()]
    if report.teacher is not None:
        parts += [f"<p>{escape(line)}</p>" for line in report.teacher.lines()]
    parts.append(f"<h2>Worst frames: reference, engine, difference x{_AMPLIFIED}</h2>")
    parts += [_frame(worst) for worst in report.frames]
    if quantization is not None:
        parts += [_layers(name, content) for name, content in quantization.items()]
    return document("lsx verify", parts)


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {'off' if value is None else value}" for name, value in options.items())


def _verdict(report: Report) -> str:
    limits = report.thresholds.as_dict()
    rows = []
    for name, value in report.figures().items():
        holds = value >= limits[name]
        verdict = '<span class="good">holds</span>' if holds else '<span class="bad">fails</span>'
        rows.append((name, f"{value:.6f}", f"{limits[name]:g}", verdict))
    rows_html = table(("threshold", "found", "at least", ""), rows, raw=True)
    if report.bisection:
        hybrids = (
            (r.component, f"{r.latents_cosine:.5f}", f"{r.mouth_ssim:.4f}", "fails" if r.failed else "holds")
            for r in report.bisection
        )
        rows_html += f"<h2>To blame: {escape(report.failing_graph or '')}</h2>"
        rows_html += table(("this the engine's, the rest the reference's", "latents", "mouth SSIM", ""), hybrids)
    if report.layers:
        layers = ((row.name, f"{row.error:.3g}", f"{row.jump:.1f}") for row in report.layers)
        rows_html += table(("layer", "relative error", "times what came before"), layers)
    return rows_html


def _cells(f: ArrayError) -> tuple[str, str, str, str]:
    return f"{f.cosine:.7f}", f"{f.max_error:.3g}", f"{f.mean_error:.3g}", f"{f.snr:.1f}"


def _curve(values: list[float]) -> str:
    """Signal-to-noise ratio in dB over the steps."""
    shown = [min(value, _HIGHEST) if math.isfinite(value) or value > 0 else 0.0 for value in values]
    points = [Point(x=index, y=value) for index, value in enumerate(shown)]
    drawn = plot(
        "drift of the latents",
        [Series(name="", points=points)],
        x_title="steps done",
        y_title="signal-to-noise ratio of the latents, dB",
    )
    return f"{drawn}<p>Against the reference's latents, before the first step (0) and after each.</p>"


def _frame(worst: WorstFrame) -> str:
    difference = np.abs(worst.result.astype(np.int16) - worst.expected.astype(np.int16)) * _AMPLIFIED
    pictures = (worst.expected, worst.result, np.clip(difference, 0, 255).astype(np.uint8))
    off = int(difference.max()) // _AMPLIFIED
    caption = "no difference: black" if not off else f"difference x{_AMPLIFIED}, at most {off} levels; black is none"
    tiles = "".join(
        f'<figure><img alt="{name}" src="data:image/png;base64,{_png(picture)}">'
        f"<figcaption>{name}</figcaption></figure>"
        for picture, name in zip(pictures, ("reference", "engine", caption), strict=True)
    )
    return f"<p>Frame {worst.frame}, mouth SSIM {worst.ssim:.4f}</p>{tiles}"


def _png(picture: NDArray[np.uint8]) -> str:
    _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return base64.b64encode(bytes(data)).decode()


def _layers(name: str, content: Mapping[str, Any]) -> str:
    rows = (
        (
            layer["name"],
            f"{100 * layer['flops_share']:.2f} %",
            content["precision"] if layer["quantised"] else "fp16",
            layer["reason"] or "",
            "" if layer["error"] is None else f"{layer['error']:.2e}",
        )
        for layer in content["layers"]
    )
    shown = table(("layer", "FLOPs", "precision", "why fp16", "error alone"), rows)
    title = (
        f"{name}: {100 * content['coverage']:.1f} % of FLOPs in {content['precision']}, cosine {content['cosine']:.5f}"
    )
    return f"<details><summary>{escape(title)}</summary>{shown}</details>"
