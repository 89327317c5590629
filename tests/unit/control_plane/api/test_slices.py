"""Answers of any length leave the event loop to others."""

import asyncio

import pytest

from control_plane.api.slices import AT_ONCE, in_slices


@pytest.mark.parametrize("count", [0, 1, AT_ONCE, AT_ONCE + 1, 20 * AT_ONCE])
async def test_others_come_between_the_slices_and_nothing_is_lost(count: int) -> None:
    """Thousands of nodes answer a push while somebody asks how it goes."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    await asyncio.sleep(0)
    before = turns

    made = await in_slices(str, range(count))

    assert made == [str(number) for number in range(count)]
    assert turns - before == max(0, (count - 1) // AT_ONCE)
    other.cancel()
