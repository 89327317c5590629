"""What one run leaves for the next, and two at once."""

import json
from pathlib import Path

import pytest

from faos_cli.up.layout import Layout
from faos_cli.up.memory import Memory, enrolled_port, exclusive, recall, remember
from faos_core.errors import ConflictError


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "d")
    made.make()
    return made


def test_what_was_remembered_is_recalled(layout: Layout) -> None:
    """Ports must stay the same from run to run."""
    memory = Memory(7444, 7443, "ab", begun=True, finished=True)

    remember(layout, memory)

    assert recall(layout) == memory


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"admin_port": "x"}', '{"admin_port": null}'])
def test_a_damaged_memory_is_no_memory(layout: Layout, damage: str) -> None:
    """Nothing in it is worth stopping for."""
    layout.memory.write_text(damage)

    assert recall(layout) == Memory()


def test_two_at_once_and_the_second_learns_the_firsts_pid(layout: Layout) -> None:
    """Somebody who forgot the other terminal must be able to find it."""
    with exclusive(layout), pytest.raises(ConflictError) as refusal, exclusive(layout):
        pass

    assert layout.lock.read_text().strip() in refusal.value.what

    with exclusive(layout):
        pass


@pytest.mark.parametrize(("identity", "port"), [({"addresses": ["[::1]:7450"]}, 7450), ({"addresses": []}, 0), ([], 0)])
def test_the_enrolled_port_is_read_from_the_identity(layout: Layout, identity: object, port: int) -> None:
    """The one thing that cannot be chosen anew."""
    layout.identity.mkdir(parents=True)
    (layout.identity / "identity.json").write_text(json.dumps(identity))

    assert enrolled_port(layout) == port
