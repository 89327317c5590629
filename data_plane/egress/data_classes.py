"""The data class that a message counts under, wherever the ledger is counted.

ledger_verifier.py says it once more, because it stands alone.
"""

from collections.abc import Container

from data_plane.ceiling.models import DoorCeiling

CLASSES = tuple(each.name for each in DoorCeiling)  # the lowest first
HIGHEST_FIRST = CLASSES[::-1]
EMPTY = "EMPTY"  # of a message without fields


def highest_class(present: Container[str]) -> str:
    """Of the classes that a message's fields have; EMPTY for none."""
    return next((name for name in HIGHEST_FIRST if name in present), EMPTY)
