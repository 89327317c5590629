import click
import pytest

from faos.admin.v1 import admin_pb2 as admin
from faos.resource.v1 import resource_pb2 as pb
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_cli.listings import LISTINGS, listing_named, parse_target
from faos_core import kinds

SAMPLES = {
    "nodes": admin.Node(name="n"),
    "sites": admin.Site(name="n"),
    "tenants": admin.Tenant(name="n"),
    "revisions": admin.Revision(number=7),
    "join-tokens": admin.JoinToken(id="n"),
    "events": admin.NodeEvent(node="n", event=tunnel.Event(epoch=1, sequence=7)),
    "audit": admin.AuditRecord(sequence=7),
}
RESOURCE = admin.GetResourceResponse(resource=pb.Resource(metadata=pb.Metadata(name="n"), agent=pb.Agent()))


@pytest.mark.parametrize("listing", LISTINGS, ids=lambda listing: listing.plural)
def test_every_row_has_a_cell_for_each_column(listing: object) -> None:
    """A cell too few shifts every value under the wrong heading."""
    chosen = next(each for each in LISTINGS if each is listing)
    sample = SAMPLES.get(chosen.plural, RESOURCE)

    cells = chosen.cells(sample)

    assert len(cells) == len(chosen.columns + chosen.wide_columns)
    assert chosen.name_of(sample) in ("n", "7", "n.1.7")
    assert chosen.name_of(sample) == cells[0]


def test_no_name_means_two_things() -> None:
    """`faos get mo` must not depend on the order of a table."""
    names = [name for listing in LISTINGS for name in listing.names]

    assert sorted(names) == sorted(set(names))


def test_every_kind_of_the_schema_can_be_listed() -> None:
    """A kind that is added to the schema is listable without anybody remembering it here."""
    assert {listing.kind for listing in LISTINGS} >= set(kinds.BY_KIND)


@pytest.mark.parametrize("name", ["toolservers", "ToolServer", "tool-servers", "tool_server", "ts"])
def test_names_are_taken_in_any_spelling(name: str) -> None:
    """Nobody remembers whether it was a hyphen."""
    assert listing_named(name).plural == "toolservers"


def test_kind_slash_name_is_kind_and_name() -> None:
    """What `-o name` prints can be pasted back."""
    listing, name = parse_target("agent/assistant", None)

    assert (listing.plural, name) == ("agents", "assistant")


def test_unknown_kind_gets_the_nearest() -> None:
    """A slip answers itself."""
    with pytest.raises(click.UsageError, match="'models'"):
        listing_named("modles")


def node_row(node: admin.Node) -> dict[str, str]:
    nodes = listing_named("nodes")
    return dict(zip(nodes.columns, nodes.cells(node), strict=False))


def test_node_shows_three_facts_and_why_they_differ() -> None:
    """Attempted, running and healthy are three questions; the row answers the one after them, too: why not."""
    config = admin.NodeConfig(attempted_revision=7, running_revision=6, healthy_revision=6)
    config.state = tunnel.APPLY_STATE_ROLLED_BACK
    config.nack.code = tunnel.NACK_CODE_CRASHED

    row = node_row(admin.Node(name="n", config=config, standing=admin.NODE_STANDING_ADMITTED))

    assert [row[name] for name in ("ATTEMPTED", "RUNNING", "HEALTHY")] == ["7", "6", "6"]
    assert row["STATE"] == "ROLLED_BACK CRASHED"
    assert row["ALARM"] == ""


def test_node_shows_what_a_person_should_look_at() -> None:
    """A copied machine and a banned one look like any other until somebody is told."""
    assert node_row(admin.Node(name="n", alarm="node.cloned"))["ALARM"] == "node.cloned"
    assert node_row(admin.Node(name="n", standing=admin.NODE_STANDING_REVOKED))["ALARM"] == "REVOKED"


def test_code_of_a_newer_server_is_shown_as_its_number() -> None:
    """An old command line must not fall over a new reason."""
    config = admin.NodeConfig(state=tunnel.APPLY_STATE_REJECTED)
    config.nack.MergeFromString(b"\x10\xb2\x18")  # code 3122

    assert node_row(admin.Node(name="n", config=config))["STATE"] == "REJECTED 3122"
