"""Jobs under kills and load: python -m tests.torture FOLDER (make torture).

A whole server with workers that cost nothing, on SQLite and on PostgreSQL, is killed, frozen, flooded and cut off. Each
check prints a line of one table: its figures, whether they are what docs/serving.md promises, and the command that runs
it alone. The end is 1 where one is not.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx

from lsx.serving.settings import ServeSettings
from tests.torture.figures import bound, figures
from tests.torture.harness import Part, Postgres, Table, postgres
from tests.torture.kills import Storm, kills
from tests.torture.network import network
from tests.torture.outage import outage
from tests.torture.retention import retention
from tests.torture.streams import streams
from tests.torture.takeovers import takeovers
from tests.torture.uploads import uploads

_DATABASES = ("sqlite", "postgresql")
_ON_SQLITE_ALONE, _ON_POSTGRESQL_ALONE = ("uploads",), ("outage",)


def _parts(given: argparse.Namespace, server: Postgres) -> Mapping[str, Part]:
    """Every check by its name, in the order in which they run: from seconds to a quarter of an hour."""
    return {
        "figures": figures,
        "bound": bound,
        "streams": streams,
        "takeovers": partial(takeovers, unseen=given.takeover_seconds, frozen=given.frozen),
        "outage": partial(outage, server=server, seconds=given.outage),
        "uploads": partial(uploads, size=given.upload_mib << 20),
        "network": network,
        "retention": partial(retention, jobs=given.retained),
        "kills": partial(kills, storm=_storm(given)),
        "load": partial(kills, storm=Storm(jobs=given.load, kills=10**6, pause=5.0, workers="cpu:4")),
    }


def _storm(given: argparse.Namespace) -> Storm:
    """So many kills among so many jobs, most of which take so long that they are hit."""
    return Storm(jobs=given.jobs, kills=given.kills, spread=True, pause=2.5, workers="cpu:4", lengths=(100, 200, 400))


def _given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("folder", type=Path, help="new, or of an earlier run's other parts")
    parser.add_argument("--only", action="append", help="a part; may be given several times; default all")
    parser.add_argument("--database", action="append", choices=_DATABASES, help="default both")
    parser.add_argument("--jobs", type=int, default=200, help="jobs under a kill a second")
    parser.add_argument("--kills", type=int, default=100, help="kills among them")
    parser.add_argument(
        "--load",
        type=int,
        default=10_000,
        help="jobs of the long load, with a kill every 5 s, for a quarter of an hour at most",
    )
    parser.add_argument("--retained", type=int, default=10_000, help="jobs that retention removes")
    parser.add_argument(
        "--takeover-seconds", type=float, default=60, help="how long a worker that is gone still counts"
    )
    parser.add_argument("--frozen", type=float, default=90, help="seconds for which a worker is frozen")
    parser.add_argument("--outage", type=float, default=20, help="seconds without PostgreSQL")
    parser.add_argument("--upload-mib", type=int, default=2048, help="size of the upload over the limit")
    return parser.parse_args()


def main() -> int:
    """Run the parts that are asked for, on the databases that are."""
    given, table = _given(), Table()
    print("| check | database | figures | as promised | command |\n|---|---|---|---|---|")
    with ExitStack() as stack:
        server = stack.enter_context(postgres(given.folder / "postgres"))
        for database in given.database or _DATABASES:
            other = _ON_POSTGRESQL_ALONE if database == "sqlite" else _ON_SQLITE_ALONE
            for name, part in _parts(given, server).items():
                if name in (given.only or [name]) and name not in other:
                    table.command = _command(given, name, database)
                    address = None if database == "sqlite" else server.address(f"torture_{name}")
                    data = given.folder.absolute() / f"{database}-{name}"
                    settings = ServeSettings(data=data, database=address, port=0, machine="torture", min_free_bytes=0)
                    try:
                        part(table, settings)
                    except (AssertionError, OSError, httpx.HTTPError) as error:
                        table.add(name, database, f"ended early: {str(error).splitlines()[:1]}", fine=False)
    return 0 if table.fine else 1


_SIZES = {
    "takeovers": ("takeover_seconds", "frozen"),
    "outage": ("outage",),
    "uploads": ("upload_mib",),
    "retention": ("retained",),
    "kills": ("jobs", "kills"),
    "load": ("load",),
}


def _command(given: argparse.Namespace, name: str, database: str) -> str:
    """What runs one part alone, with the sizes that it has here."""
    sizes = [word for size in _SIZES.get(name, ()) for word in (f"--{size.replace('_', '-')}", getattr(given, size))]
    words = ["python", "-m", "tests.torture", given.folder.name, "--only", name, "--database", database, *sizes]
    return shlex.join(str(word) for word in words)


if __name__ == "__main__":
    sys.exit(main())
