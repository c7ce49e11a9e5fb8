"""Logs: one JSON object a line on standard error, with the job that it is about. Never a key, never a URL's query."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

__all__ = ["log_to_stderr", "logger"]


def log_to_stderr(level: str, **bound: Any) -> None:
    """Log from now on as JSON, each line with `bound` (the process, the machine)."""
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        lambda _logger, _method, line: {**bound, **line},  # a context would not reach the threads of DBOS
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        # a line with its end at once: between the two, `logging` would write the lines of other threads
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
    dbos = logging.getLogger("dbos")  # without a handler it takes one of its own, whose lines are no JSON
    dbos.handlers, dbos.propagate = [handler], False


def logger(**bound: Any) -> Any:
    """A logger whose lines all have `bound`."""
    return structlog.get_logger().bind(**bound)
