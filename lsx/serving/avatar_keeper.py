"""What the keeper sees to of avatars: places of those that crashed, preparations and files that nobody uses."""

from __future__ import annotations

import sqlalchemy as sa

from lsx.serving.database import AVATARS, HOUR_MS, JOBS, PREPARATIONS, now_ms
from lsx.serving.gpu_queue import dbos_client
from lsx.serving.heartbeat import seen_since
from lsx.serving.statuses import STATUSES, TERMINAL
from lsx.serving.store import Store

__all__ = ["AvatarKeeper"]

_SLASHES = 3  # a preparation lies in avatars/AVATAR/ENCODER/PREPARATION; what lies elsewhere is none of lsx's


class AvatarKeeper:
    """Looks after avatars in a database and its store. One of several does no harm."""

    def __init__(self, engine: sa.Engine, store: Store, seen_seconds: float) -> None:
        """seen_seconds : how long after its last word a worker still counts."""
        self._engine, self._store, self._seen_seconds = engine, store, seen_seconds
        self._client = dbos_client(engine)

    def sweep(self) -> None:
        """Free the places of those that ended without a word."""
        begun = sa.select(AVATARS.c.id).where(AVATARS.c.finished_ms.is_(None), AVATARS.c.started_ms.is_not(None))
        with self._engine.connect() as connection:
            ids = list(connection.execute(begun).scalars())
        if not ids:
            return
        found = self._client.list_workflows(workflow_ids=ids, load_input=False, load_output=False)
        ended = [workflow.workflow_id for workflow in found if STATUSES[workflow.status] in TERMINAL]
        if ended:
            with self._engine.begin() as connection:
                over = AVATARS.update().where(AVATARS.c.id.in_(ended), AVATARS.c.finished_ms.is_(None))
                connection.execute(over.values(finished_ms=now_ms(connection)))

    def remove_unused(self, now: int) -> None:
        """Forget preparations for bundles that no worker has, where the avatar has one for a bundle that is served.

        So what the avatar is made from always stays.
        """
        with self._engine.connect() as connection:
            workers = seen_since(connection, self._seen_seconds, "worker")
            served = {row.facts.get("encoder") for row in workers}
            every = connection.execute(sa.select(PREPARATIONS)).all()
        current = {row.avatar for row in every if row.encoder in served}
        old = [row for row in every if row.encoder not in served and row.avatar in current]
        for row in old:
            unused = sa.and_(PREPARATIONS.c.prefix == row.prefix, PREPARATIONS.c.used_ms < now - HOUR_MS)
            with self._engine.begin() as connection:
                gone = connection.execute(PREPARATIONS.delete().where(unused)).rowcount
            if gone:
                self._store.remove(row.prefix)

    def remove_orphans(self, now: int) -> None:
        """Files that no preparation names, none of which is younger than an hour, and on which no worker is busy."""
        latest: dict[str, int] = {}
        for found in self._store.list("avatars"):
            prefix = found.key.rpartition("/")[0]
            if prefix.count("/") == _SLASHES:
                latest[prefix] = max(latest.get(prefix, 0), found.modified_ms)
        with self._engine.connect() as connection:
            named = set(connection.execute(sa.select(PREPARATIONS.c.prefix)).scalars())
            busy = set(connection.execute(sa.select(AVATARS.c.id).where(AVATARS.c.finished_ms.is_(None))).scalars())
            active = str(connection.execute(sa.select(JOBS.c.request).where(JOBS.c.finished_ms.is_(None))).all())
        for prefix, modified in latest.items():
            avatar = prefix.split("/")[1]
            if prefix not in named and avatar not in busy and avatar not in active and modified < now - HOUR_MS:
                self._store.remove(prefix)
