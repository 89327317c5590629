"""What GetStatus and GetActivity answer."""

from datetime import datetime

from data_plane.agents.events import KINDS, STATES
from data_plane.agents.sight import ActiveRun
from data_plane.api.interfaces import Facts, LinkState, Sight
from faos.site.v1 import site_pb2 as site
from faos_core.errors import REGISTRY, FaosError
from faos_core.timestamps import timestamp

MOST_RUNS = 200
LOOK_CLOSER = "Look closer: faos doctor"


async def status_of(facts: Facts) -> site.GetStatusResponse:
    link = facts.link.state()
    configuration = facts.configuration.running()
    answer = site.GetStatusResponse(
        spiffe_id=link.spiffe_id,
        connected=link.connected,
        attempted_revision=link.attempted_revision,
        running_revision=configuration.revision,
        healthy_revision=link.healthy_revision,
        agents=sorted(configuration.agents),
        models=sorted(configuration.models),
        ledger_size=facts.ledger.head().size,
        alarms=link.alarms,
        alarm_details=[alarm_of(code, link) for code in link.alarms],
        link_problem=problem_of(link.problem) if link.problem else None,
    )
    if facts.sight is not None:
        answer.MergeFrom(await seen(facts.sight))
    return answer


async def seen(sight: Sight) -> site.GetStatusResponse:
    standing, ended = sight.standing(), await sight.ended_runs()
    return site.GetStatusResponse(
        started_at=timestamp(standing.started_at),
        connected_since=timestamp(standing.connected_since),
        control_plane=standing.control_plane,
        certificate_expires_at=timestamp(standing.certificate_expires_at),
        tool_servers=[
            site.ToolServerHealth(name=it.name, is_healthy=not it.problem, problem=it.problem, tools=it.tools)
            for it in sight.tool_servers()
        ],
        active_runs=sight.counts().active,
        ended_runs=[site.EndedRuns(state=STATES[state], count=count) for state, count in sorted(ended.items())],
        ledger_classes=[
            site.LedgerClass(data_class=name, leaves=total.leaves, size_bytes=total.size_bytes)
            for name, total in sight.ledger_totals().items()
        ],
        events_waiting=await sight.events_waiting(),
    )


async def activity_of(facts: Facts, sight: Sight, now: datetime) -> site.GetActivityResponse:
    totals = sight.ledger_totals().values()
    counts = sight.counts()
    return site.GetActivityResponse(
        at=timestamp(now),
        runs=[run_of(run) for run in sight.active_runs()[:MOST_RUNS]],
        active_runs=counts.active,
        ended_runs=counts.finished,
        most_runs=sight.most_runs(),
        processes=[
            site.Process(pid=use.pid, name=use.name, cpu_seconds=use.cpu_s, rss_bytes=use.rss_bytes)
            for use in await sight.processes()
        ],
        connected=facts.link.state().connected,
        ledger_leaves=sum(total.leaves for total in totals),
        ledger_bytes=sum(total.size_bytes for total in totals),
        events_waiting=await sight.events_waiting(),
        output_tokens=sight.output_tokens(),
    )


def run_of(run: ActiveRun) -> site.ActiveRun:
    message = site.ActiveRun(
        run_id=run.run_id, agent=run.agent, started_at=timestamp(run.started_at), output_tokens=run.output_tokens
    )
    if step := run.step:
        message.step_sequence = step.sequence
        message.step_kind = KINDS[step.request.kind]
        message.step_name = step.request.name
        message.step_started_at.CopyFrom(timestamp(step.started_at))
        message.step_deltas = run.deltas
    return message


def problem_of(error: FaosError) -> site.LinkProblem:
    return site.LinkProblem(code=error.code.code, what=error.what, why=error.why, next_step=error.next_step)


def alarm_of(code: str, link: LinkState) -> site.LinkProblem:
    """The registry's texts; where these name what only the moment knew, the link's own or a place to look."""
    if link.problem and link.problem.code.code == code:
        return problem_of(link.problem)
    entry = REGISTRY.get(code)
    if entry is None:
        return site.LinkProblem(code=code, next_step=LOOK_CLOSER)
    what, why, next_step = (plain(text) for text in (entry.what, entry.why, entry.next_step))
    return site.LinkProblem(code=code, what=what, why=why, next_step=next_step or LOOK_CLOSER)


def plain(text: str) -> str:
    """The text, if it is whole without fields; else nothing."""
    try:
        return text.format()
    except (KeyError, IndexError):
        return ""
