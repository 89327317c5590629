"""The commands that speak to a control plane, each as a process against a real one."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from control_plane.fleet.events import EventLog
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from faos_cli.admin_client import FINAL
from faos_cli.listings import MOST_EVENTS
from faos_core.clock import SystemClock
from faos_core.resource_yaml import loads
from faos_core.store import Store
from tests.parts import ROOT
from tests.system.harness import RunningControlPlane, running_control_plane

if TYPE_CHECKING:
    from tests.unit.faos_cli.conftest import RunFaos

QUICKSTART = ROOT / "examples" / "quickstart" / "resources"
BAD_REFERENCE = """\
apiVersion: faos/v1
kind: Agent
metadata:
  name: nurse
spec:
  model: absent
  tools:
    - nowhere
  policies:
    - nobody
"""


async def test_from_nothing_to_a_join_string(plane: RunningControlPlane, run_faos: "RunFaos") -> None:
    """The cloud operator's first minute, in the order in which each command's hint leads to the next."""
    empty = await run_faos("get", "sites")
    tenant = await run_faos("tenant", "create", "mercy")
    site = await run_faos("site", "create", "main", "--label", "region=north")
    token = await run_faos("join-token", "create", "--site", "main", "--ttl", "10m", "-l", "floor=3")
    listed = await run_faos("get", "jt", "-o", "json")

    assert (empty.code, "faos tenant create" in empty.err) == (1, True)
    assert (tenant.out, "faos site create" in tenant.err) == ("tenant/mercy created\n", True)
    assert (site.out, "faos join-token create --site main" in site.err) == ("site/main created\n", True)
    assert token.out.startswith("faos-join-v1.")
    assert len(token.out.splitlines()) == 1
    assert listed.json["items"][0]["labels"].items() >= {"floor": "3"}.items()
    assert token.out.strip() not in listed.out


async def test_same_tenant_twice_is_an_error(plane: RunningControlPlane, run_faos: "RunFaos") -> None:
    """A script that makes what is there must notice."""
    await run_faos("tenant", "create", "mercy")

    again = await run_faos("tenant", "create", "mercy")

    assert (again.code, "mercy" in again.err, again.out) == (1, True, "")


async def test_apply_says_what_changes_then_that_nothing_does(plane: RunningControlPlane, run_faos: "RunFaos") -> None:
    """kubectl's lines: what each resource became, and that applying again is harmless."""
    await plane.create_tenant()

    dry = await run_faos("apply", "-f", str(QUICKSTART), "--dry-run")
    first = await run_faos("apply", "-f", str(QUICKSTART))
    second = await run_faos("apply", "-f", str(QUICKSTART), "--wait", "5s")

    assert "agent/assistant created (dry run)" in dry.out
    assert "agent/assistant created\n" in first.out
    assert "Revision 1 is the desired state now; sites: main" in first.out
    assert "agent/assistant unchanged\n" in second.out
    assert (second.code, "No node is enrolled" in second.err) == (0, True)


async def test_apply_shows_every_mistake_of_a_file_at_its_place(
    plane: RunningControlPlane, run_faos: "RunFaos", tmp_path: Path
) -> None:
    """file:line:column of each, so that an editor jumps there; nothing is sent."""
    await plane.create_tenant()
    (tmp_path / "bad.yaml").write_text("apiVersion: faos/v1\nkind: Agent\nmetadata: {name: x}\nspec: {modle: 1}\n")

    done = await run_faos("apply", "-f", "bad.yaml")

    assert (done.code, done.out) == (1, "")
    assert "bad.yaml:4:8: spec.modle:" in done.err


async def test_apply_shows_what_the_control_plane_refuses_at_its_place(
    plane: RunningControlPlane, run_faos: "RunFaos", tmp_path: Path
) -> None:
    """A missing reference is known only there; the author's file and line are known only here."""
    await plane.create_tenant()
    (tmp_path / "agent.yaml").write_text(BAD_REFERENCE)

    done = await run_faos("apply", "-f", "agent.yaml")
    piped = await run_faos("apply", "-f", "-", stdin=BAD_REFERENCE)
    resources = await run_faos("get", "resources")

    assert (done.code, piped.code) == (1, 1)
    assert "agent.yaml:6:3: spec.model:" in done.err
    assert "agent.yaml:8:7: spec.tools[0]:" in done.err
    assert "agent.yaml:10:7: spec.policies[0]:" in done.err
    assert "<stdin>:6:3: spec.model:" in piped.err
    assert "There are no resources" in resources.err


async def test_get_shows_the_same_things_in_each_form(plane: RunningControlPlane, run_faos: "RunFaos") -> None:
    """People read tables, scripts JSON, and what YAML shows can be applied again."""
    await plane.create_tenant()
    await run_faos("apply", "-f", str(QUICKSTART))

    table = await run_faos("get", "agents")
    as_json = await run_faos("get", "agent", "assistant", "-o", "json")
    as_yaml = await run_faos("get", "all", "-o", "yaml")
    names = await run_faos("get", "resources", "-o", "name")
    one = await run_faos("get", "agent/assistant", "-o", "name")

    assert [line.split()[:2] for line in table.out.splitlines()] == [["NAME", "KIND"], ["assistant", "Agent"]]
    assert (as_json.json["kind"], as_json.json["spec"]["model"]) == ("Agent", "smollm2")
    assert len(loads(as_yaml.out)) == 5
    assert "knowledgebase/handbook" in names.out.splitlines()
    assert one.out == "agent/assistant\n"


async def test_lists_are_whole_however_long(plane: RunningControlPlane, run_faos: "RunFaos") -> None:
    """The server gives pages; who counts sites in a script must not stop at the first."""
    names = [f"site-{number:03d}" for number in range(520)]
    await plane.create_tenant("mercy", *names)

    done = await run_faos("get", "sites", "-o", "name")
    some = await run_faos("get", "audit", "--limit", "3", "-o", "name")

    assert done.out.splitlines() == [f"site/{name}" for name in names]
    assert len(some.out.splitlines()) == 3


async def test_nodes_show_three_facts_and_their_refusal(
    plane: RunningControlPlane, run_faos: "RunFaos", tmp_path: Path
) -> None:
    """Joined by hand over a pipe, then looked at: both sides show the same words."""
    await plane.create_tenant()
    string = await run_faos("join-token", "create", "--site", "main")

    joined = await run_faos("join", "-", "--data", "node", "--site", "main", stdin=string.out)
    again = await run_faos("join", string.out.strip(), "--data", "other")
    nodes = await run_faos("get", "nodes", "-o", "json")
    (node,) = nodes.json["items"]
    described = await run_faos("describe", "node", node["name"])
    document = await run_faos("describe", "node", node["name"], "-o", "json")
    context = await run_faos("--context", "node", "status", "-o", "json")

    assert joined.code == 0
    words = " ".join(node["fingerprintWords"])
    assert f"fingerprint  {words}" in joined.out
    assert "site.toml" in joined.out
    assert words in described.out
    assert (document.json["node"]["name"], document.json["history"]) == (node["name"], [])
    assert [line.split() for line in described.out.splitlines() if "attempted" in line] == [["attempted", "none"]]
    assert (again.code, "error:" in again.err) == (1, True)
    assert context.json["node"]["data"] == str(tmp_path / "node")


async def test_events_of_nodes_are_listed_newest_first_and_bounded(
    plane: RunningControlPlane, run_faos: "RunFaos", tmp_path: Path
) -> None:
    """What nodes tell, and the control plane keeps, somebody must be able to read."""
    await plane.create_tenant()
    empty = await run_faos("get", "events")
    member = await plane.join(tmp_path / "node")
    ended = tunnel.RunEnded(run_id="run-1", agent="helper", outcome=tunnel.RUN_OUTCOME_FAILED, turns=2)
    told = [
        tunnel.Event(epoch=1, sequence=1, events_dropped=tunnel.EventsDropped(count=3)),
        tunnel.Event(epoch=1, sequence=2, alarm_changed=tunnel.AlarmChanged(code="store.full", is_raised=True)),
        *(tunnel.Event(epoch=1, sequence=number, run_ended=ended) for number in range(3, MOST_EVENTS + 2)),
    ]
    async with Store(f"sqlite:///{plane.data_dir / 'control-plane.db'}") as store:
        await EventLog(store, SystemClock()).record(member.identity, told)

    newest = await run_faos("get", "events")
    everything = await run_faos("get", "events", "--limit", "1000", "-o", "json")
    one = await run_faos("get", "event", f"{member.identity.node}.1.2", "-o", "wide")

    assert (empty.code, empty.out, "none yet" in empty.err) == (0, "", True)
    assert len(newest.out.splitlines()) == 1 + MOST_EVENTS
    assert "--limit" in newest.err
    assert "run failed" in newest.out
    assert "run-1 of helper, 2 turns" in newest.out
    assert len(everything.json["items"]) == len(told)
    assert everything.err == ""
    assert everything.json["items"][-1]["event"]["eventsDropped"]["count"] == "3"
    assert "store.full" in one.out


async def test_join_refuses_a_string_for_another_site(plane: RunningControlPlane, run_faos: "RunFaos") -> None:
    """Two strings in one clipboard must not put the pharmacy's node into the laboratory."""
    await plane.create_tenant()
    string = await run_faos("join-token", "create", "--site", "main")

    done = await run_faos("join", string.out.strip(), "--site", "annex", "--data", "node")

    assert done.code == 1
    assert "annex" in done.err


async def test_revision_says_what_it_changed(plane: RunningControlPlane, run_faos: "RunFaos") -> None:
    """ "What changed on Tuesday" is one command."""
    await plane.create_tenant()
    await run_faos("apply", "-f", str(QUICKSTART))

    listed = await run_faos("get", "revisions", "-o", "json")
    described = await run_faos("describe", "revision", "1")
    agent = await run_faos("describe", "agent", "assistant")
    absent = await run_faos("describe", "revision", "2")
    documents = [
        await run_faos("describe", *named, "-o", "json") for named in (("revision", "1"), ("agent", "assistant"))
    ]

    assert (documents[0].json["revision"]["number"], documents[0].json["nodes"]) == ("1", [])
    assert documents[1].json["metadata"]["name"] == "assistant"
    assert listed.json["items"][0]["number"] == "1"
    assert ["Agent", "assistant", "created"] in [line.split() for line in described.out.splitlines()]
    assert loads(agent.out)[0].resource.metadata.name == "assistant"
    assert absent.code == 1


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("get", "agent", "absent"), "absent"),
        (("get", "site", "absent"), "faos get sites"),
        (("describe", "node", "absent"), "faos get nodes"),
        (("get", "sites", "--tenant", "absent"), "absent"),
    ],
)
async def test_what_is_not_there_is_said_by_name(
    plane: RunningControlPlane, run_faos: "RunFaos", arguments: tuple[str, ...], hint: str
) -> None:
    """An empty answer with exit code 0 would let a script go on with nothing."""
    await plane.create_tenant()

    done = await run_faos(*arguments)

    assert (done.code, done.out) == (1, "")
    assert hint in done.err


async def test_several_tenants_must_be_told_apart(plane: RunningControlPlane, run_faos: "RunFaos") -> None:
    """Guessing a tenant would apply one customer's agents to another."""
    await plane.create_tenant("mercy")
    await plane.create_tenant("hope")

    guessed = await run_faos("apply", "-f", str(QUICKSTART))
    told = await run_faos("apply", "-f", str(QUICKSTART), "--tenant", "hope")

    assert (guessed.code, "--tenant" in guessed.err) == (1, True)
    assert told.code == 0


async def test_wrong_token_asks_for_authentication(
    plane: RunningControlPlane, run_faos: "RunFaos", tmp_path: Path
) -> None:
    """Exit code 4 is how a script knows to log in rather than to retry."""
    (tmp_path / "wrong").write_text("faos-admin-nobody")

    done = await run_faos("get", "tenants", "--token-file", "wrong")
    unreadable = await run_faos("get", "tenants", "--token-file", "absent")

    assert done.code == 4
    assert (unreadable.code, "absent" in unreadable.err) == (1, True)


async def test_server_of_another_ca_is_refused(plane: RunningControlPlane, run_faos: "RunFaos", tmp_path: Path) -> None:
    """The token must never be shown to whoever happens to answer at an address."""
    async with running_control_plane(tmp_path / "other") as other:
        ca = str(other.data_dir / "ca" / "ca.pem")

        done = await run_faos("get", "tenants", "--ca", ca)

    assert done.code == 1
    assert "is not the control plane that is expected" in done.err


async def test_control_plane_that_is_gone_is_said_so(run_faos: "RunFaos", tmp_path: Path) -> None:
    """The commonest failure: the server is not running. `status` says it too, and why."""
    async with running_control_plane(tmp_path / "gone") as plane:
        address = f"127.0.0.1:{plane.endpoints.admin_port}"
    where = ("--server", address, "--ca", "gone/ca/ca.pem", "--token-file", "gone/admin.token")

    done = await run_faos("get", "nodes", *where)

    assert done.code == 1
    assert f"The control plane at {address} does not answer." in done.err
    assert "Traceback" not in done.err


async def test_status_of_a_control_plane_without_node(plane: RunningControlPlane, run_faos: "RunFaos") -> None:
    """On the cloud's own machine there is no node; that is no fault."""
    await plane.create_tenant()

    done = await run_faos("status")
    as_json = await run_faos("status", "-o", "json")

    assert done.code == 0
    assert "0 of 0 connected" in done.out
    assert as_json.json["controlPlane"]["state"] == "UP"


def test_refusal_is_a_final_state_of_the_schema() -> None:
    """--wait must end at each state that ends an offer, also one that is added later."""
    passing = {"UNSPECIFIED", "RECEIVED", "VERIFIED", "PENDING_APPROVAL", "STAGED", "APPLYING", "SOAKING"}
    names = {name.removeprefix("APPLY_STATE_") for name in tunnel.ApplyState.keys()}  # noqa: SIM118  # no mapping

    assert {tunnel.ApplyState.Name(state).removeprefix("APPLY_STATE_") for state in FINAL} == names - passing
