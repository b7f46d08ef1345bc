"""PostgreSQL, shared: a bounded pool of connections, every wait with an end.

Nothing here outlives a transaction on the server (no prepared statement, no session setting, no session lock), so a
pooler that hands out connections transaction by transaction may stand in between.
"""

from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

_CONNECTIONS = 10
_POOL_TIMEOUT = 5.0
"""Seconds that a transaction waits for a connection of the pool."""
_STATEMENT_TIMEOUT = 8
"""Seconds after which the server gives a statement up, or a transaction that its client forgot."""
TRANSACTION_TIMEOUT = 12.0
"""Seconds after which a transaction is given up here: a server that fell silent keeps no promise of its own."""
_MIGRATION_TIMEOUT = 600
"""Seconds that one step of a migration may take, the wait for another process's migration among them."""
_MIGRATION_LOCK = 0x6C6F636B73746570  # "lockstep"

# libpq's names; what the URL says itself wins. Seconds, but for tcp_user_timeout.
_CONNECTION = {
    "application_name": "lockstep",
    "client_encoding": "utf8",
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}


def pool(url: URL) -> AsyncEngine:
    """The connections of this process. Makes none yet. None is tried before it is used again: the transaction's BEGIN
    does that (see `Database`)."""
    engine = create_async_engine(
        url.set(drivername="postgresql+psycopg_async"),
        hide_parameters=True,
        pool_size=_CONNECTIONS,
        max_overflow=0,
        pool_timeout=_POOL_TIMEOUT,
        **_driver(url),
    )
    _begin(engine.sync_engine, *_limits(_STATEMENT_TIMEOUT))
    return engine


def migrator(url: URL) -> Engine:
    """A blocking engine for a migration: its transactions wait for those of other processes' migrations."""
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"), hide_parameters=True, poolclass=NullPool, **_driver(url)
    )
    # A lock of the transaction: it ends with it, whatever becomes of this process, and passes a pooler.
    _begin(engine, *_limits(_MIGRATION_TIMEOUT), f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
    return engine


def _driver(url: URL) -> dict[str, Any]:
    arguments: dict[str, Any] = {name: value for name, value in _CONNECTION.items() if name not in url.query}
    # Transactions are begun below: the driver would send its own BEGIN first, one more way to the server and back.
    return {"connect_args": {**arguments, "prepare_threshold": None, "autocommit": True}, "use_native_hstore": False}


def _limits(seconds: int) -> list[str]:
    return [f"SET LOCAL {name} = '{seconds}s'" for name in ("statement_timeout", "idle_in_transaction_session_timeout")]


def _begin(engine: Engine, *statements: str) -> None:
    begin = "; ".join(("BEGIN", *statements))

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)
