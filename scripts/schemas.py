"""The JSON schemas that docs/schemas publishes, made from the code: python -m scripts.schemas."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from lsx.runtime.run_report import RUN_REPORT_SCHEMA, RunReport

__all__ = ["FOLDER", "run_report"]

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


def main() -> None:
    """Write them."""
    (FOLDER / "run_report.json").write_text(json.dumps(run_report(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
