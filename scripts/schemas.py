"""The JSON schemas that docs/schemas publishes, made from the code: python -m scripts.schemas."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from lsx.faces.detector import FAMILIES
from lsx.faces.track_file import TRACKS_SCHEMA
from lsx.runtime.run_report import RUN_REPORT_SCHEMA, RunReport

__all__ = ["FOLDER", "run_report", "tracks"]

FOLDER = Path(__file__).parents[1] / "docs" / "schemas"


def run_report() -> dict[str, Any]:
    """The schema of `lsx run --report`'s file; its descriptions are the fields' docstrings."""
    schema = TypeAdapter(RunReport).json_schema()
    schema["description"] = "What a run did: lsx run --report FILE."
    (report,) = (node for node in ast.parse(inspect.getsource(RunReport)).body if isinstance(node, ast.ClassDef))
    for field, after in zip(report.body, report.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            schema["properties"][ast.unparse(field.target)]["description"] = " ".join(str(after.value.value).split())
    schema["properties"] = {"schema_version": {"const": RUN_REPORT_SCHEMA}, **schema["properties"]}
    schema["required"] = ["schema_version", *schema["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _lists(of: dict[str, Any], description: str) -> dict[str, Any]:
    return {"type": "array", "items": of, "description": description}


def tracks() -> dict[str, Any]:
    """The schema of `lsx faces -o`'s file."""
    whole, number = {"type": "integer", "minimum": 0}, {"type": "number"}
    video = {"name": {"type": "string"}, "frames": whole, "width": whole, "height": whole, "bytes": whole}
    box = {"type": "array", "items": number, "minItems": 4, "maxItems": 4}
    points = {"type": "array", "items": number, "minItems": 6, "maxItems": 6}
    track = {
        "id": {"type": "integer", "minimum": 1, "description": "In the order in which tracks begin."},
        "shot": {**whole, "description": "Its shot, from 0 on."},
        "size": {**number, "description": "Median height of the box, pixels."},
        "frames": _lists(whole, "Frames of the video at 25 a second, rising; the lists below have an entry for each."),
        "boxes": _lists(box, "x0, y0, x1, y1 in pixels."),
        "points": _lists(points, "x, y of the left brow, the right brow and the nose, left as in the picture, pixels."),
        "scores": _lists(number, "The detector's, 0 to 1."),
        "sharpness": _lists(number, "Variance of the Laplacian of the aligned face at 128 pixels."),
        "mouth_opening": _lists(
            {"type": ["number", "null"]},
            "Between the inner lips, as a share of the distance of the eyes' outer corners; null where the face models "
            "do not say.",
        ),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tracks",
        "description": "Every face of a video, followed through its shots: lsx faces VIDEO -o tracks.json.",
        **_object(
            {
                "schema_version": {"const": TRACKS_SCHEMA},
                "video": _object(video),
                "face_models": {"enum": sorted(FAMILIES)},
                "tracks": _lists(_object(track), "In the order in which tracks end."),
                "shots": _lists(whole, "The first frame of each shot."),
            }
        ),
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties]}


def main() -> None:
    """Write them."""
    for name, schema in (("run_report", run_report()), ("tracks", tracks())):
        (FOLDER / f"{name}.json").write_text(json.dumps(schema, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
