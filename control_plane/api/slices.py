"""Long answers made a little at a time, so that who asks for one holds up nobody else."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
M = TypeVar("M")

AT_ONCE = 50  # messages: about a millisecond of work


async def in_slices(make: Callable[[T], M], items: Sequence[T]) -> list[M]:
    """What `make` makes of each item, in their order; other work of the event loop comes between slices."""
    made = list(map(make, items[:AT_ONCE]))
    for first in range(AT_ONCE, len(items), AT_ONCE):
        await asyncio.sleep(0)
        made += map(make, items[first : first + AT_ONCE])
    return made
