"""Every NACK has words, because the node sends none."""

import pytest

from control_plane.api.messages import nack_message
from control_plane.api.nack_texts import NACK_TEXTS, UNKNOWN, explanation_of
from control_plane.api.node_queries import NackFacts
from faos.resource.v1.resource_pb2 import Kind
from faos.tunnel.v1.tunnel_pb2 import ApplyState, NackCode


def test_no_code_is_without_explanation() -> None:
    """A code that is added to the proto alone would reach the operator as a number."""
    assert set(NACK_TEXTS) == set(NackCode.values())


def test_explanations_are_whole_and_apart() -> None:
    """Each says what it means and what to do: two sentences at least, none copied from another."""
    assert len(set(NACK_TEXTS.values())) == len(NACK_TEXTS)
    for code, text in NACK_TEXTS.items():
        assert text.count(". ") + text.count(": ") >= 1, NackCode.Name(code)
        assert text.endswith((".", "df -h.")), NackCode.Name(code)


def test_a_code_of_a_newer_node_is_explained_too() -> None:
    """Nodes may be newer than their control plane."""
    assert explanation_of(12345) == UNKNOWN


def test_nack_is_shown_in_names() -> None:
    """The node sent numbers only; a person reads a path as it stands in YAML."""
    nack = NackFacts(
        failed_to_reach=ApplyState.APPLY_STATE_VERIFIED,
        code=NackCode.NACK_CODE_NAME_NOT_IN_CEILING,
        kind=Kind.KIND_TOOL_SERVER,
        resource_name="clock",
        field_path=(12, 1),
    )

    message = nack_message(nack)

    assert (message.kind, message.resource_name, message.field_path) == ("ToolServer", "clock", "spec.program")
    assert "site.toml" in message.explanation
    assert message.failed_to_reach == ApplyState.APPLY_STATE_VERIFIED


@pytest.mark.parametrize("kind", [0, 999])
def test_nack_of_no_known_kind_is_shown(kind: int) -> None:
    """Nothing that a node sends may break the list of nodes."""
    message = nack_message(NackFacts(99, 4711, kind, "", (1, 2, 3)))

    assert message.kind == ""
    assert message.explanation == UNKNOWN
