"""Databases of a PostgreSQL server."""

from __future__ import annotations

from uuid import uuid4

import sqlalchemy as sa

__all__ = ["new_database"]


def new_database(server: str, template: str = "template1") -> str:
    """The address of a new database of a server, like another one of it."""
    name, url = f"lsx_{uuid4().hex[:12]}", sa.make_url(server).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    return str(url.set(database=name).render_as_string(hide_password=False))
