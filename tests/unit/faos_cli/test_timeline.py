import pytest

from faos.site.v1 import site_pb2 as site
from faos_cli.timeline import shortened, show_run, step_summary

RETRIEVAL = (
    site.STEP_KIND_RETRIEVAL,
    {"query": "q"},
    {"passages": [{"document": "oxygen.md", "chunk": 2, "score": 0.713, "text": "Call 12345."}, {}]},
    "2 passage(s), best oxygen.md #2 (0.71): Call 12345.",
)
NOTHING_RETRIEVED = (site.STEP_KIND_RETRIEVAL, {}, {"passages": []}, "no passage found")
ROUTING = (
    site.STEP_KIND_ROUTING,
    {"candidates": [{"server": "wards", "tool": "free_beds"}]},
    {"scores": [0.6], "passage_score": 0.35, "server": "wards", "tool": "free_beds"},
    "chose wards/free_beds (wards/free_beds 0.60; passages 0.35)",
)
PASSAGES_WON = (
    site.STEP_KIND_ROUTING,
    {"candidates": []},
    {"scores": [], "passage_score": None, "server": "", "tool": ""},
    "chose the passages ()",
)
MODEL = (
    site.STEP_KIND_MODEL,
    {"purpose": "answer"},
    {"text": "It is\n5.", "input_tokens": 85, "output_tokens": 4},
    "answer, 85 → 4 tokens: It is 5.",
)
TOOL = (
    site.STEP_KIND_TOOL,
    {"arguments": {"ward": "surgery"}},
    {"text": "Two beds."},
    '{"ward": "surgery"} → Two beds.',
)


def step_of(kind: site.StepKind.ValueType, request: object, result: object, **fields: object) -> site.Step:
    step = site.Step(sequence=1, kind=kind, name="x", attempts=1, **fields)  # type: ignore[arg-type]  # as given
    step.request.update(request)  # type: ignore[arg-type]  # a dict of any shape
    step.result.update(result)  # type: ignore[arg-type]  # as above
    step.started_at.FromMilliseconds(1_000)
    step.finished_at.FromMilliseconds(1_250)
    return step


@pytest.mark.parametrize(
    ("kind", "request_body", "result", "summary"),
    [RETRIEVAL, NOTHING_RETRIEVED, ROUTING, PASSAGES_WON, MODEL, TOOL],
)
def test_step_is_summed_up_by_its_kind(
    kind: site.StepKind.ValueType, request_body: object, result: object, summary: str
) -> None:
    """The timeline answers "why did it say that" without reading JSON."""
    assert step_summary(step_of(kind, request_body, result)) == summary


def test_failed_step_says_its_code_and_what_the_tool_said() -> None:
    """The cause of a bad answer is most often a tool; its own words are at the site and may be shown there."""
    step = step_of(site.STEP_KIND_TOOL, {}, {"text": "no such ward"}, error_code="run.tool_failed")

    assert step_summary(step) == "failed: run.tool_failed: no such ward"


def test_step_cut_off_by_a_crash_is_said_to_be_unfinished() -> None:
    """An empty result must not be read as an empty answer."""
    step = step_of(site.STEP_KIND_TOOL, {}, {})
    step.ClearField("finished_at")

    assert step_summary(step) == "begun, not finished"


def test_timeline_shows_run_steps_attempts_and_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """Everything that a person needs of one run on one screen."""
    kind, request, result, summary = TOOL
    step = step_of(kind, request, result)
    step.attempts = 2
    run = site.Run(
        run_id="run-1",
        agent="helper",
        revision=3,
        state=site.RUN_STATE_SUCCEEDED,
        input="Free beds?",
        output="Two.\nYes.",
    )

    show_run(site.GetRunResponse(run=run, steps=[step]))

    shown = capsys.readouterr().out
    for part in ("run-1", "helper, revision 3", "SUCCEEDED", "Free beds?", "250 ms", "2 attempts", summary, "Two."):
        assert part in shown


@pytest.mark.parametrize(("text", "short"), [("a  b\nc", "a b c"), ("x" * 9, "xxxx…"), ("xxxxx", "xxxxx")])
def test_shortened_is_one_line_of_bounded_length(text: str, short: str) -> None:
    """A passage of a page would push everything else off the screen."""
    assert shortened(text, 5) == short
