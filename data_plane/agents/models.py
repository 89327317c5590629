"""Tables of runs and their steps. Everything of a customer's is sealed; names, states, times and counts are plain."""

import sqlalchemy as sa

from data_plane.storage.erasure import SubjectRows, register
from data_plane.storage.metadata import metadata
from data_plane.storage.sealed import Sealed

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),  # sorts by time of making
    sa.Column("agent", sa.String(63), nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),  # that the run started with
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("idempotency_index", sa.LargeBinary(32)),  # blind index of the caller's key; none without a key
    sa.Column("subject_index", sa.LargeBinary(32)),  # none for the tenant's own
    sa.Column("subject", Sealed),  # name, needed to seal further steps after a restart
    sa.Column("input", Sealed, nullable=False),
    sa.Column("output", Sealed),
    sa.Column("error_code", sa.String(64), nullable=False),
    sa.Column("started_at_us", sa.BigInteger, nullable=False),  # microseconds since 1970, UTC
    sa.Column("finished_at_us", sa.BigInteger),
    sa.UniqueConstraint("agent", "idempotency_index"),
    sa.Index("ix_runs_state", "state"),
)

steps = sa.Table(
    "steps",
    metadata,
    sa.Column("run_id", sa.String(64), sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),  # from 1
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("name", sa.Text, nullable=False),  # names of the configuration
    sa.Column("attempts", sa.Integer, nullable=False),  # how often it was begun
    sa.Column("subject_index", sa.LargeBinary(32)),
    sa.Column("request", Sealed, nullable=False),
    sa.Column("result", Sealed),
    sa.Column("error_code", sa.String(64), nullable=False),
    sa.Column("started_at_us", sa.BigInteger, nullable=False),
    sa.Column("finished_at_us", sa.BigInteger),  # none until it is recorded
    sa.Column("elapsed_ms", sa.BigInteger, nullable=False, server_default="0"),  # of the run, when it was begun
)

register(SubjectRows("agents.runs", (steps, runs)))
