"""A push to thousands of nodes leaves room for everything else, and no node can hold it up."""

import asyncio

import pytest

from tests.patience import PATIENCE_S
from tunnel import push_window
from tunnel.push_window import PushWindow

LONG_S = 3600.0


async def entered(window: PushWindow, *nodes: str) -> None:
    for node in nodes:
        await window.enter(node)


async def turns() -> None:
    """Everything that is ready happens, and what follows from it."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_only_so_many_nodes_are_about_to_answer() -> None:
    """Without the bound, an admin call waits for the answers of all nodes that were told before it."""
    window = PushWindow(places=2, patience_s=LONG_S)
    await entered(window, "a", "b")

    third = asyncio.ensure_future(window.enter("c"))
    await turns()
    waits = not third.done()
    window.leave("b")
    await asyncio.wait_for(third, PATIENCE_S)

    assert waits


async def test_a_node_that_was_heard_leaves_its_place_to_another() -> None:
    """A push goes on as fast as nodes answer, however long the patience."""
    window = PushWindow(places=1, patience_s=LONG_S)

    async with asyncio.timeout(PATIENCE_S):
        for number in range(100):
            await window.enter(number)
            window.leave(number)
            window.leave(number)


async def test_nodes_that_do_not_answer_give_their_places_up() -> None:
    """One node that hangs, or thousands far away, must not keep a configuration from the others."""
    window = PushWindow(places=2, patience_s=0.001)

    await asyncio.wait_for(entered(window, *(str(number) for number in range(50))), PATIENCE_S)


async def test_a_node_that_is_told_again_takes_no_second_place() -> None:
    """Two changes in a row must not halve the room."""
    window = PushWindow(places=2, patience_s=LONG_S)

    await asyncio.wait_for(entered(window, "a", "a", "b", "a"), PATIENCE_S)


async def test_who_waits_for_a_place_can_be_cancelled() -> None:
    """A control plane that stops in the middle of a push must not wait for its nodes."""
    window = PushWindow(places=1, patience_s=LONG_S)
    await window.enter("a")
    waiting = asyncio.ensure_future(window.enter("b"))
    await turns()

    waiting.cancel()
    await asyncio.wait([waiting], timeout=PATIENCE_S)

    assert waiting.cancelled()


async def test_few_nodes_are_about_to_answer_while_somebody_calls() -> None:
    """A call passes the event loop several times, and waits for what is before it each time."""
    window = PushWindow(places=3, patience_s=LONG_S, few_places=1)
    window.make_room()
    await window.enter("a")

    second = asyncio.ensure_future(window.enter("b"))
    await turns()
    waits = not second.done()
    window.leave("a")
    await asyncio.wait_for(second, PATIENCE_S)

    assert waits


async def test_there_is_as_much_room_as_before_when_nobody_calls_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few places cost more CPU: one call must not make a whole push dear."""
    monkeypatch.setattr(push_window, "ROOM_S", 0.0)
    window = PushWindow(places=3, patience_s=LONG_S, few_places=1)
    window.make_room()

    await asyncio.wait_for(entered(window, "a", "b", "c"), PATIENCE_S)
