import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faos.admin.v1 import admin_pb2 as admin
from faos_cli.options import DURATION, LABEL
from faos_cli.output import (
    age,
    aligned,
    as_json,
    duration,
    enum_text,
    moment,
    print_facts,
    print_json,
    print_table,
    print_yaml,
    printable,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (7200, "2h"), (86400 * 12, "12d"), (-5, "0s")],
)
def test_age_is_in_the_largest_unit_that_fits(seconds: int, text: str) -> None:
    """Somebody scanning a list reads "3h", not 10,800 seconds; a clock that is ahead is not negative."""
    assert age(NOW - timedelta(seconds=seconds), now=NOW) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.0124, "12 ms"), (1.417, "1.42 s"), (185, "3 min 5 s")])
def test_duration_keeps_what_matters(seconds: float, text: str) -> None:
    """Steps take milliseconds, runs take minutes; both are read in one table."""
    assert duration(seconds) == text


@given(st.lists(st.tuples(st.text("ab c", max_size=9), st.text("xyz", max_size=9)), min_size=1))
def test_columns_stand_below_each_other(rows: list[tuple[str, str]]) -> None:
    """Aligned output is what people and cut(1) rely on: the second column begins at one place in every line."""
    start = max(len(first) for first, _ in rows) + 3

    for line, (first, second) in zip(aligned(rows), rows, strict=True):
        assert line == (first.ljust(start) + second).rstrip()


def test_control_characters_never_reach_the_terminal() -> None:
    """What a model or a tool said must not be able to drive the operator's terminal."""
    assert printable("a\x1b[31mb\nc\x07ü") == "a\N{REPLACEMENT CHARACTER}[31mb c\N{REPLACEMENT CHARACTER}ü"


def test_table_is_plain_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts parse it: no colour, no frame, nothing cut."""
    print_table(("NAME", "STATE"), [("n" * 300, "HEALTHY"), ("b", "")])

    assert capsys.readouterr().out == f"{'NAME':300}   STATE\n{'n' * 300}   HEALTHY\nb\n"


def test_facts_without_value_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty line says nothing, and a text of several lines stays one block."""
    print_facts({"name": "x", "error": "", "answer": "one\ntwo"}, indent=2)

    assert capsys.readouterr().out == "  name     x\n  answer   one\n           two\n"


def test_enum_is_shown_without_its_prefix() -> None:
    """LIVE is a word; LIVENESS_LIVE is a constant. Unspecified is nothing to show."""
    node = admin.Node(liveness=admin.LIVENESS_LIVE)

    assert (enum_text(node, "liveness"), enum_text(admin.Node(), "liveness")) == ("LIVE", "")


def test_moment_that_is_not_set_is_none() -> None:
    """A node that never connected was not last seen in 1970."""
    assert moment(admin.Node(), "last_seen_at") is None


def test_json_has_fields_that_hold_their_default() -> None:
    """`jq .activeRuns` must give 0, not null."""
    assert as_json(admin.Node(name="n"))["activeRuns"] == 0


def test_yaml_keeps_order_and_quotes_what_is_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    """A revision is a text in proto JSON and must stay one."""
    print_yaml({"name": "n", "desiredRevision": "1", "labels": {"b": "x", "a": "y"}})

    assert capsys.readouterr().out == "name: n\ndesiredRevision: '1'\nlabels:\n  b: x\n  a: y\n"


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("2h", 7200), ("1d", 86400)])
def test_durations_are_read(text: str, seconds: int) -> None:
    """A token that lives sixty times as long as meant is a hole."""
    assert DURATION.convert(text, None, None) == seconds


def test_label_keeps_every_equals_sign_behind_the_first() -> None:
    """Values are the operator's own; only the key ends at "="."""
    assert LABEL.convert("key=a=b", None, None) == ("key", "a=b")


def test_json_does_not_drive_the_terminal_and_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """What a model wrote is shown by `faos run show -o json`, too; programs must read what it was."""
    value = {"answer": "a\x9b2Jb\x1b[2J\x7f é"}

    print_json(value)

    said = capsys.readouterr().out
    assert [each for each in said if not each.isprintable() and each != "\n"] == []
    assert (json.loads(said), "é" in said) == (value, True)
