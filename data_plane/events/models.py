"""Tables of what happened here and has not arrived at the control plane. Numbers, ids and names: nothing of a
customer's, so nothing is sealed."""

import sqlalchemy as sa

from data_plane.storage.metadata import metadata

# One row.
event_spool = sa.Table(
    "event_spool",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),  # 1
    sa.Column("node", sa.String(255), nullable=False),  # SPIFFE ID of who this machine was when it last started
    sa.Column("epoch", sa.BigInteger, nullable=False),  # of the process that has it open; never falls
    sa.Column("sequence", sa.BigInteger, nullable=False),  # last one given in that epoch
    sa.Column("event_count", sa.BigInteger, nullable=False),  # rows of spooled_events, and their bodies
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
)

spooled_events = sa.Table(
    "spooled_events",
    metadata,
    sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("body", sa.LargeBinary, nullable=False),  # faos.tunnel.v1.Event without its key
    sa.Column("dropped_count", sa.BigInteger, nullable=False),  # events that this row stands for; 0: it is one itself
)

# Alarms whose beginning was spooled, and whose end was not.
raised_alarms = sa.Table("raised_alarms", metadata, sa.Column("code", sa.String(64), primary_key=True))
