"""The end of `faos up`: two questions, and the check of what came of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.json_format import MessageToDict

from faos.site.v1 import site_pb2 as site
from faos_cli import site_client
from faos_cli.site_client import SiteClient
from faos_cli.up.departures import Departures, Moment, by_class, departures_since
from faos_cli.up.layout import Layout
from faos_cli.up.needles import Search, encodings, files_below, finds_what_is_planted, search
from faos_cli.up.questions import (
    DOCUMENT_QUESTION,
    TOOL_QUESTION,
    Answer,
    Proof,
    ask,
    proof_of_document,
    proof_of_tool,
)
from faos_cli.up.screen import Screen
from faos_cli.up.site_files import Numbers


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold. run_id: the run that shows it."""

    name: str
    is_right: bool
    text: str
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the two questions and the check came to."""

    answers: tuple[Answer, ...]
    checks: tuple[Check, ...]
    departures: Departures
    search: Search
    numbers: Numbers
    steps: dict[str, list[site.Step]] = field(default_factory=dict)  # by run id

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if not check.is_right]


async def ask_and_check(layout: Layout, screen: Screen, numbers: Numbers, since: Moment) -> Outcome:
    """Ask both questions, streaming, then look at the journal, the ledger and the control plane's files."""
    async with site_client.connect(layout.node) as client:
        answers = [await ask_aloud(client, screen, question) for question in (DOCUMENT_QUESTION, TOOL_QUESTION)]
        steps = {answer.run_id: list((await client.get_run(answer.run_id)).steps) for answer in answers}
    departures = departures_since(layout, since)
    found = search(searched_files(layout), [numbers.document, numbers.tool])
    checks = [
        *answer_checks(answers, steps, numbers),
        *departure_checks(departures),
        search_check(layout, found, numbers),
    ]
    return Outcome(tuple(answers), tuple(checks), departures, found, numbers, steps)


async def ask_aloud(client: SiteClient, screen: Screen, question: str) -> Answer:
    screen.heading(question)
    screen.write("  ")
    answer = await ask(client, question, on_text=screen.write)
    screen.line()
    return answer


def answer_checks(answers: list[Answer], steps: dict[str, list[site.Step]], numbers: Numbers) -> Iterator[Check]:
    """What the answers say, and what the journal says about where they came from."""
    document, tool = answers
    yield answer_check("document", document, numbers.document, proof_of_document(steps[document.run_id], numbers))
    yield answer_check("tool", tool, numbers.tool, proof_of_tool(steps[tool.run_id], numbers))


def answer_check(name: str, answer: Answer, number: str, proof: Proof) -> Check:
    if answer.state != site.RUN_STATE_SUCCEEDED:
        return Check(name, False, f"the run did not succeed: {answer.error_code}", answer.run_id)
    stands = number in answer.text
    said = f"{number} {'stands' if stands else 'does not stand'} in the answer"
    return Check(name, stands and proof.is_right, f"{said}; journal: {proof.text}", answer.run_id)


def departure_checks(departures: Departures) -> Iterator[Check]:
    total = departures.summary.total
    classes = by_class(departures.summary)
    parts = ", ".join(f"{name.lower()} {count} ({size:,} bytes)" for name, (count, size) in classes.items())
    clean = classes["CUSTOMER"][0] == 0
    yield Check("left the site", clean, f"{count_of(total.messages)}, {total.size_bytes:,} bytes: {parts}")
    report = departures.report
    head = f"{report.size} records, tree head {report.root_sha256[:16]}…"
    received = f"what the control plane received ({count_of(departures.received)}) is all in it"
    if departures.unaccounted:
        received = (
            f"of {count_of(departures.received)} that the control plane received, {departures.unaccounted} not in it"
        )
    is_right = report.ok and not departures.unaccounted
    yield Check("ledger", is_right, f"{'verified' if report.ok else report.problem}: {head}; {received}")


def count_of(messages: int) -> str:
    return "1 message" if messages == 1 else f"{messages} messages"


def searched_files(layout: Layout) -> Iterator[tuple[str, bytes]]:
    """All that the control plane has: database, frames as received, keys and metadata, and its log."""
    yield from files_below(layout.control_plane)
    log = layout.logs / "control-plane.log"
    yield log.name, log.read_bytes()


def search_check(layout: Layout, found: Search, numbers: Numbers) -> Check:
    """Nothing found, something searched, and proof that it would have been found."""
    both = [numbers.document, numbers.tool]
    sample = layout.frames.read_bytes()[-65536:]
    works = finds_what_is_planted(sample, both)
    searched = f"{len(encodings(numbers.tool))} encodings of both numbers in {found.searched_bytes / 1024:,.0f} KiB"
    whose = f"of the control plane's database, received frames and log ({found.files} files)"
    text = f"{searched} {whose}: found {len(found.found)} times"
    if found.found:
        text += f", first in {found.found[0].where} ({found.found[0].encoding})"
    if found.coincidences:
        text += f" (and {found.coincidences} times inside longer numbers: timestamps, digests)"
    text += "; the search finds planted ones" if works else "; but the search does not find planted ones"
    return Check("search", found.is_clean and works and bool(sample), text)


def as_json(outcome: Outcome) -> dict[str, Any]:
    departures = outcome.departures
    return {
        "numbers": {"document": outcome.numbers.document, "tool": outcome.numbers.tool},
        "answers": [
            {"question": each.question, "run_id": each.run_id, "text": each.text, "took_s": round(each.took_s, 3)}
            for each in outcome.answers
        ],
        "journal": {run_id: [MessageToDict(step) for step in steps] for run_id, steps in outcome.steps.items()},
        "checks": {each.name: {"ok": each.is_right, "text": each.text} for each in outcome.checks},
        "left": {
            "messages": departures.summary.total.messages,
            "bytes": departures.summary.total.size_bytes,
            "by_class": {
                name: {"messages": count, "bytes": size} for name, (count, size) in by_class(departures.summary).items()
            },
        },
        "ledger": {
            "ok": departures.report.ok,
            "size": departures.report.size,
            "root_sha256": departures.report.root_sha256,
            "received": departures.received,
            "unaccounted": departures.unaccounted,
        },
        "search": {
            "bytes": outcome.search.searched_bytes,
            "files": outcome.search.files,
            "found": len(outcome.search.found),
            "coincidences": outcome.search.coincidences,
        },
    }
