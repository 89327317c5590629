"""What the papers say can be typed, followed and found."""

import fnmatch
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from faos_cli.__main__ import faos
from faos_cli.listings import listing_named
from tests.arch.sources import ROOT, product
from tests.arch.test_errors import registered

PAPERS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MAKEFILE = ROOT / "Makefile"
HARMLESS = {"cd", "git", "source"}  # commands of the system that the papers may show besides ours
# The words of the design; one idea each.
WORDS = {
    *("tenant", "site", "node", "resource", "revision", "manifest", "publisher", "rollout", "ceiling"),
    *("tunnel", "door", "gate", "ledger", "run", "turn", "step", "conversation", "approval"),
}
NOT_BUILT = {"rollout", "conversation", "approval"}  # the glossary holds what exists; these come with their code


@dataclass(frozen=True)
class Shown:
    """A command line in a paper."""

    place: str
    line: str
    whole: bool = True  # False where prose names a command, which leaves out what it needs


def commands_in(text: str, name: str) -> Iterator[Shown]:
    """Lines of `sh` fences, of indented blocks, and inline code that begins with `faos` or `make`."""
    fence: str | None = None
    for number, line in enumerate(text.splitlines(), 1):
        place = f"{name}:{number}"
        if line.startswith("```"):
            fence = line.removeprefix("```").strip() if fence is None else None
        elif fence == "sh" or (fence is None and re.match(r" {4}(faos|make) ", line)):
            if line.strip() and not line.strip().startswith("#"):
                yield Shown(place, line.strip())
        elif fence is None:
            yield from (Shown(place, found, whole=False) for found in re.findall(r"`((?:faos|make) [^`]*)`", line))


def shown() -> list[Shown]:
    return [found for paper in PAPERS for found in commands_in(paper.read_text(), paper.relative_to(ROOT).as_posix())]


def problem_of(line: str, targets: set[str], *, whole: bool = True) -> str | None:
    """Why the line cannot be typed; nothing is run."""
    program, *arguments = shlex.split(line, comments=True)
    if program == "make":
        unknown = [word for word in arguments if "=" not in word and word not in targets]
        return f"make has no {', '.join(unknown)}" if unknown else None
    if program == "faos":
        return parse(arguments) if whole else known_command(line)
    return None if program in HARMLESS or (ROOT / program).exists() else f"{program} is no command of ours"


def parse(arguments: Sequence[str]) -> str | None:
    """What click says against these arguments. Loads the command, and calls nothing."""
    command: click.Command = faos
    try:
        context = faos.make_context("faos", list(arguments))
        while isinstance(command, click.Group) and (words := [*context._protected_args, *context.args]):
            name, found, rest = command.resolve_command(context, words)
            assert found is not None
            command, context = found, found.make_context(name, list(rest), parent=context)
    except click.UsageError as error:
        return error.format_message() or type(error).__name__
    except click.exceptions.Exit:  # --help and --version
        return None
    return None


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", MAKEFILE.read_text(), flags=re.MULTILINE))


def test_every_command_shown_can_be_typed() -> None:
    """The first thing that a newcomer types is copied from here."""
    found = shown()

    assert len(found) > 15
    problems = {each.place: problem_of(each.line, make_targets(), whole=each.whole) for each in found}
    assert {place: problem for place, problem in problems.items() if problem} == {}


KIND_SHOWN = re.compile(r"\bfaos (?:get|describe) ([a-z][a-z-]+)")


def test_every_kind_shown_can_be_got() -> None:
    """A sample of the settings said `faos get events` when there was no such thing to get."""
    papers = [*PAPERS, *sorted((ROOT / "deploy").glob("*.toml"))]
    named = {kind for paper in papers for kind in KIND_SHOWN.findall(paper.read_text())}

    assert {"nodes", "events"} <= named
    for kind in sorted(named):
        listing_named(kind)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("make up ONCE=1", None),
        ("make coffee", "no coffee"),
        ("faos get nodes -o json   # a comment", None),
        ("faos gett nodes", "no command 'gett'"),
        ("faos get nodes --nowhere", "--nowhere"),
        ("faos apply", "Missing option"),
        ("faos join-token", "Usage"),
        ("faos join-token crate", "crate"),
        ("rm -rf /", "no command of ours"),
        ("scripts/lock.sh", None),
    ],
)
def test_check_of_commands_sees_a_wrong_one(line: str, said: str | None) -> None:
    """A check that finds nothing wrong must be able to."""
    problem = problem_of(line, make_targets())

    assert (problem is None) == (said is None)
    assert said is None or said in str(problem)


def test_commands_are_found_wherever_they_stand() -> None:
    """One that the scan does not see goes stale."""
    text = "`faos a` and `x`\n```sh\nfaos b  # c\n\n# d\n```\n```\nfaos no\n```\n\n    make e\n    other\n"

    found = [(each.place, each.line) for each in commands_in(text, "p")]

    assert found == [("p:1", "faos a"), ("p:3", "faos b  # c"), ("p:11", "make e")]


# --- what errors tell a person to type ---


# A command in a sentence, up to where prose goes on; "the same version of faos here" is none.
ADVICE = re.compile(r"""(?<!version of )\bfaos (?:-|[a-z])[^`'",;:()]*""")


def advice() -> Iterator[tuple[str, str]]:
    """Code → each `faos …` in its last sentence, up to where prose goes on."""
    for entry in registered():
        for found in ADVICE.findall(entry.next_step):
            yield entry.code, found.strip().rstrip(".")


def known_command(line: str) -> str | None:
    """Why no command begins like this: words that lead to it, and options that it has."""
    words = [word for word in line.split()[1:] if word]
    command: click.Command = faos
    while words and isinstance(command, click.Group) and not words[0].startswith("-"):
        child = command.get_command(click.Context(command), words.pop(0))
        if child is None:
            return f"{line!r}: no such command"
        command = child
    options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    wrong = [word for word in words if word.startswith("--") and word.split("=")[0] not in options]
    return f"{line!r}: no option {', '.join(wrong)}" if wrong else None


def test_what_errors_tell_to_type_exists() -> None:
    """The next step is read by somebody who is stuck already."""
    given = list(advice())

    assert len(given) > 30
    assert [f"{code}: {problem}" for code, line in given if (problem := known_command(line))] == []


@pytest.mark.parametrize(
    ("line", "known"),
    [
        ("faos get nodes", True),
        ("faos join-token create --site SITE", True),
        ("faos join-token mint", False),
        ("faos get nodes --sight x", False),
        ("faos fetch", False),
    ],
)
def test_check_of_advice_sees_a_wrong_one(line: str, known: bool) -> None:
    """A check that finds nothing wrong must be able to."""
    assert (known_command(line) is None) == known


# --- links, dependencies, words ---


def broken_links(text: str, paper: Path) -> list[str]:
    """Targets of links, and paths in backticks that begin with a folder of ours, which do not exist."""
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    broken = [link for link in links if link and not (paper.parent / link).exists()]
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    quoted = re.findall(r"`([A-Za-z_.*]+/[A-Za-z0-9_./*-]*)`", text)
    paths = [path.rstrip("/") for path in quoted if path.split("/")[0] in folders]
    return broken + [path for path in paths if not any(ROOT.glob(path))]


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(paper: Path) -> None:
    """A dead link is where a reader gives up."""
    assert broken_links(paper.read_text(), paper) == []


def test_check_of_links_sees_a_broken_one() -> None:
    """A check that finds nothing wrong must be able to."""
    text = "[a](docs/glossary.md#x) [b](docs/nothing.md) [c](https://example.org/x) `faos_core/nothing.py` `a/b`"

    assert broken_links(text, ROOT / "README.md") == ["docs/nothing.md", "faos_core/nothing.py"]


def rows(paper: Path) -> list[list[str]]:
    """Cells of a paper's tables, headings and rules left out."""
    lines = [line for line in paper.read_text().splitlines() if line.startswith("|") and "|---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines][1:]


def declared() -> dict[str, set[str]]:
    """Distribution → extras that name it; "base" for those of every role."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups: Mapping[str, Sequence[str]] = {"base": project["dependencies"], **project["optional-dependencies"]}
    found: dict[str, set[str]] = {}
    for group, requirements in groups.items():
        for requirement in requirements:
            match = re.match(r"[A-Za-z0-9._-]+", requirement)
            assert match, requirement
            if match.group() != "faos-hybrid":
                found.setdefault(match.group(), set()).add(group)
    return found


def test_every_dependency_has_its_row() -> None:
    """Each has its reason and its licence, where somebody can judge them."""
    papers = rows(ROOT / "docs/dev/dependencies.md")
    table = [(name, set(extras.split(", "))) for names, extras, *_ in papers for name in names.split(", ")]
    missing = {
        name: extras
        for name, extras in declared().items()
        if not any(fnmatch.fnmatch(name, pattern) and extras == said for pattern, said in table)
    }
    idle = [pattern for pattern, _ in table if not fnmatch.filter(declared(), pattern)]

    assert (missing, idle) == ({}, [])
    assert all(len(row) == 4 and all(row) for row in papers)


def test_glossary_holds_the_words_of_the_design_and_each_is_used() -> None:
    """One word per idea works as long as the words are those of the code."""
    entries = [word for row in rows(ROOT / "docs/glossary.md") for word in row[0].split(", ")]
    code = "\n".join(source.text for source in product()) + "\n".join(
        path.read_text() for path in (ROOT / "proto").rglob("*.proto")
    )
    plain = re.sub(r"[^a-z]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", code).lower())

    assert len(set(entries)) == len(entries)
    assert set(entries) >= WORDS - NOT_BUILT
    assert [word for word in entries if re.sub(r"[^a-z]+", " ", word.lower()) not in plain] == []
