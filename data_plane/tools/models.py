"""The table of accepted tool definitions. Names of the site and digests: nothing of a customer's."""

import sqlalchemy as sa

from data_plane.storage.metadata import metadata

tool_pins = sa.Table(
    "tool_pins",
    metadata,
    sa.Column("source", sa.String(80), primary_key=True),  # "program/clock", "endpoint/wards": names of site.toml
    sa.Column("tool", sa.String(128), primary_key=True),
    sa.Column("sha256", sa.String(64), nullable=False),  # of the definition that was accepted
    sa.Column("pinned_at_us", sa.BigInteger, nullable=False),  # microseconds since 1970, UTC
)
