"""Codes of the audit log."""

from faos_core.errors import define

CHAIN_BROKEN = define(
    "audit.chain_broken",
    what="The audit log does not hold together at record {sequence}.",
    why="A record was changed, removed or put in after it was written.",
    next_step="Keep the database as it is, and compare record {sequence} with your last backup.",
)
