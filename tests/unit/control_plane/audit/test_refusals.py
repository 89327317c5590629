"""Refused attempts: recorded up to a rate, counted beyond it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.audit.refusals import AT_ONCE, EVERY_S, MOST_ACTORS, RefusalLimit
from control_plane.audit.service import LEFT_OUT, AuditService
from control_plane.db.schema import migrate_schema
from faos_core.lifecycle import running
from faos_core.store import Store


@pytest.fixture
async def audit(tmp_path: Path) -> AsyncIterator[AuditService]:
    url = f"sqlite:///{tmp_path / 'cp.db'}"
    migrate_schema(url)
    async with Store(url) as store:
        yield AuditService(store)


async def refuse(audit: AuditService, actor: str, *, times: int) -> None:
    for _ in range(times):
        await audit.record(
            actor=actor, action="x/CreateTenant", tenant="acme", target="acme", outcome="UNAUTHENTICATED"
        )


async def test_flood_without_a_token_costs_bounded_rows_and_is_counted(audit: AuditService) -> None:
    """Anybody who reaches the port could fill the database, and wake every control plane over it each time."""
    async with running([audit]):
        await refuse(audit, "anonymous", times=3 * AT_ONCE)
        await refuse(audit, "admin", times=2)

    records, _ = await audit.list("", page_size=1000, page_token="")
    counted = [(each.actor, int(each.target)) for each in records if each.action == LEFT_OUT]
    of_anybody = [each for each in records if each.actor == "anonymous" and each.action != LEFT_OUT]
    assert sum(each.actor == "admin" for each in records) == 2, "one actor does not silence another"
    assert len(of_anybody) < AT_ONCE + 20
    assert [(actor, len(of_anybody) + count) for actor, count in counted] == [("anonymous", 3 * AT_ONCE)]
    assert await audit.verify() == len(records)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 30)), max_size=400))
def test_each_attempt_is_recorded_or_counted_and_rates_hold(attempts: list[tuple[str, float]]) -> None:
    """Nothing vanishes, whatever the pace, and nobody exceeds their rate."""
    limit, now_s = RefusalLimit(), 0.0
    recorded = dict.fromkeys("ab", 0)
    for actor, pause_s in attempts:
        now_s += pause_s
        recorded[actor] += limit.allows(actor, now_s)

    counts = limit.counts()
    for actor, count in recorded.items():
        assert count + counts.get(actor, 0) == sum(each == actor for each, _ in attempts)
        assert count <= AT_ONCE + now_s / EVERY_S + 1
    assert limit.counts() == {}


def test_memory_of_actors_is_bounded_and_keeps_what_was_left_out() -> None:
    """A thousand service accounts later, a flood that is under way is still a flood."""
    limit = RefusalLimit()
    for _ in range(AT_ONCE + 5):
        limit.allows("flooder", 0.0)
    for number in range(2 * MOST_ACTORS):
        limit.allows(f"a{number}", 0.0)

    assert len(limit._allowances) <= MOST_ACTORS
    assert limit.counts() == {"flooder": 5}
