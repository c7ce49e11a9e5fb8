"""The child that makes the database ready before anything else starts."""

from __future__ import annotations

import logging
import sys

from sqlalchemy.exc import SQLAlchemyError

from lsx.serving.database import database_url, migrate
from lsx.serving.logs import log_to_stderr, logger
from lsx.serving.processes import given_settings

__all__ = ["main"]


def main() -> int:
    """Migrate the database of the settings on standard input."""
    settings = given_settings()
    log_to_stderr(settings.log_level, process="migration", machine=settings.machine)
    logging.getLogger("dbos").setLevel(logging.WARNING)
    try:
        migrate(database_url(settings.database, settings.data))
    except SQLAlchemyError as error:
        logger().error("the database cannot be made ready", error=str(error).splitlines()[0])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
