from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from control_plane.api import interceptor
from faos.admin.v1 import admin_pb2 as admin
from faos.tunnel.v1.tunnel_pb2 import ApplyState
from faos_cli import admin_client
from faos_cli.admin_client import Outcome, Settlement, outcome_of, read_authority, read_token, wait_until_settled
from faos_cli.commands.apply import refuse_unhealthy
from faos_cli.context import read_context
from faos_core.errors import DeadlineError, InvalidError, SetupError
from faos_core.resource_yaml import load
from tests.parts import ROOT
from tests.system.harness import TENANT, RunningControlPlane

QUICKSTART = ROOT / "examples" / "quickstart" / "resources"


def node_at(attempted: int, state: int, *, healthy: int = 0, name: str = "n") -> admin.Node:
    config = admin.NodeConfig(attempted_revision=attempted, state=ApplyState.ValueType(state), healthy_revision=healthy)
    if state in (ApplyState.APPLY_STATE_REJECTED, ApplyState.APPLY_STATE_ROLLED_BACK):
        config.nack.explanation = "The folder is not in site.toml."
    return admin.Node(name=name, site="main", config=config)


@pytest.mark.parametrize(
    ("node", "outcome"),
    [
        (node_at(0, 0), Outcome.PENDING),
        (node_at(2, ApplyState.APPLY_STATE_HEALTHY, healthy=2), Outcome.PENDING),
        (node_at(3, ApplyState.APPLY_STATE_SOAKING), Outcome.PENDING),
        (node_at(3, ApplyState.APPLY_STATE_HEALTHY, healthy=3), Outcome.HEALTHY),
        (node_at(3, ApplyState.APPLY_STATE_REJECTED), Outcome.REFUSED),
        (node_at(3, ApplyState.APPLY_STATE_ROLLED_BACK), Outcome.REFUSED),
        (node_at(4, ApplyState.APPLY_STATE_APPLYING, healthy=3), Outcome.HEALTHY),
        (node_at(4, ApplyState.APPLY_STATE_APPLYING, healthy=2), Outcome.SUPERSEDED),
        (node_at(4, ApplyState.APPLY_STATE_HEALTHY, healthy=4), Outcome.HEALTHY),
    ],
)
def test_outcome_is_of_the_revision_that_was_applied(node: admin.Node, outcome: Outcome) -> None:
    """A deployment script must not take the health of the revision before for that of its own."""
    assert outcome_of(node, 3) is outcome


def test_one_refusal_is_an_error_that_explains() -> None:
    """`apply --wait` in CI fails with the site's own reason, not with "timed out"."""
    nodes = (
        node_at(3, ApplyState.APPLY_STATE_HEALTHY, healthy=3),
        node_at(3, ApplyState.APPLY_STATE_REJECTED, name="m"),
    )

    with pytest.raises(InvalidError) as caught:
        refuse_unhealthy(Settlement(3, nodes))

    assert "1 healthy, 1 refused" in caught.value.what
    assert "The folder is not in site.toml." in caught.value.why
    assert caught.value.next_step == "faos describe node m"


def test_node_that_has_not_decided_is_a_deadline() -> None:
    """Time that is over is something to try again; a refusal is not."""
    with pytest.raises(DeadlineError) as caught:
        refuse_unhealthy(Settlement(3, (node_at(2, ApplyState.APPLY_STATE_HEALTHY),)))

    assert "Node n of site main" in caught.value.why


def test_healthy_everywhere_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    """The good end says on how many nodes."""
    refuse_unhealthy(Settlement(3, (node_at(3, ApplyState.APPLY_STATE_HEALTHY, healthy=3),)))

    assert capsys.readouterr().out == "Revision 3 is healthy on 1 node(s).\n"


def test_violations_travel_under_the_key_that_the_server_uses() -> None:
    """The command line does not import the control plane; only this keeps the two spellings one."""
    assert admin_client.VIOLATIONS_KEY == interceptor.VIOLATIONS_KEY


async def test_waiting_ends_with_the_time_and_tells_each_change(plane: RunningControlPlane, tmp_path: Path) -> None:
    """A node that is switched off must not hold a script for ever; what is known then is the answer."""
    await plane.create_tenant()
    member = await plane.join(tmp_path / "node")
    told: list[str] = []

    async with admin_client.connect(read_context(tmp_path / ".faos" / "context.json")) as client:
        applied = await admin_client.apply_resources(client, TENANT, load([QUICKSTART]))
        settlement = await wait_until_settled(
            client,
            TENANT,
            applied.revision,
            sites=["main"],
            timeout_s=0.3,
            on_change=lambda node: told.append(node.name),
        )
        elsewhere = await wait_until_settled(client, TENANT, applied.revision, sites=["annex"], timeout_s=0.0)

    assert not settlement.is_settled
    assert [node.name for node in settlement.having(Outcome.PENDING)] == [member.identity.node] == told
    assert (elsewhere.is_settled, elsewhere.nodes) == (True, ())


@pytest.mark.parametrize("content", [b"", b"\n", b"one\ntwo", "schlüssel".encode(), b"\xff\xfe", b"two words"])
def test_token_file_that_holds_no_token_is_said_and_not_shown(tmp_path: Path, content: bytes) -> None:
    """The wrong file is the commonest mistake; it may be another secret."""
    file = tmp_path / "token"
    file.write_bytes(content)

    with pytest.raises(SetupError) as caught:
        read_token(file)

    assert caught.value.what == f"{file} is no admin token."
    assert not [word for word in content.split() if word.decode(errors="replace") in str(caught.value)]


def test_token_is_read_without_what_an_editor_puts_after_it(tmp_path: Path) -> None:
    """A line feed at the end is no part of it."""
    (tmp_path / "token").write_bytes(b"a.b-c_d=\r\n")

    assert read_token(tmp_path / "token") == "a.b-c_d="


def test_file_without_a_certificate_is_said(tmp_path: Path) -> None:
    """gRPC says of it that nobody answers."""
    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key").write_bytes(pem)

    with pytest.raises(SetupError) as caught:
        read_authority(tmp_path / "key")

    assert "is no CA certificate" in caught.value.what
