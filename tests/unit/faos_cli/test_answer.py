import io

from hypothesis import given
from hypothesis import strategies as st

from faos.site.v1 import site_pb2 as site
from faos_cli.answer import AnswerText, RunScreen

WORDS = st.lists(st.text("abc \n", min_size=1, max_size=5), max_size=8)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def delta(text: str) -> site.RunEvent:
    return site.RunEvent(run_id="r", sequence=2, text_delta=site.TextDelta(text=text))


def step_started() -> site.RunEvent:
    return site.RunEvent(run_id="r", sequence=2, step_started=site.StepStarted(kind=site.STEP_KIND_MODEL, name="m"))


def finished(output: str) -> site.RunEvent:
    ending = site.RunFinished(state=site.RUN_STATE_SUCCEEDED, output=output)
    return site.RunEvent(run_id="r", sequence=4, finished=ending)


@given(pieces=WORDS, heard=st.integers(0, 8), lost=st.integers(0, 8))
def test_answer_is_shown_once_however_it_is_told(pieces: list[str], heard: int, lost: int) -> None:
    """A node that restarts tells its step again, and a slow reader loses pieces: the reader sees the answer once."""
    whole = "".join(pieces)
    answer = AnswerText()

    shown = answer.begin() + "".join(answer.hear(piece) for piece in pieces[:heard])
    shown += answer.begin() + "".join(answer.hear(piece) for piece in pieces[:lost])
    shown += answer.finish(whole)

    assert shown.strip() == whole.strip()


def test_answer_that_comes_out_differently_is_shown_whole() -> None:
    """A sampling model may say something else after a restart: what counts is what was recorded, all of it."""
    answer = AnswerText()

    shown = answer.hear("The number is 4") + answer.begin() + answer.hear("It is 5.") + answer.finish("It is 5.")

    assert shown == "The number is 4\nIt is 5.\n"


def test_pipe_gets_the_finished_answer_only() -> None:
    """A script that reads the answer must not get half of one that was told again."""
    stdout, stderr = io.StringIO(), io.StringIO()
    screen = RunScreen(stdout, stderr)

    for event in (step_started(), delta("The num"), step_started(), delta("It is 5."), finished("It is 5.")):
        screen.show(event)

    assert (stdout.getvalue(), stderr.getvalue()) == ("It is 5.\n", "")


def test_terminal_sees_the_answer_grow_and_the_steps_beside_it() -> None:
    """Seconds of silence look like a hang; the steps go where they do not mix with the answer."""
    stdout, stderr = Terminal(), Terminal()
    screen = RunScreen(stdout, stderr)
    step = site.Step(sequence=1, kind=site.STEP_KIND_TOOL, name="read_gauge", error_code="run.tool_failed")
    step.finished_at.FromMilliseconds(1500)

    screen.show(delta("It"))
    so_far = stdout.getvalue()
    screen.show(site.RunEvent(step_finished=site.StepFinished(step=step)))
    screen.show(delta(" is 5."))
    screen.show(finished("It is 5."))

    assert (so_far, stdout.getvalue()) == ("It", "It is 5.\n")
    assert "tool read_gauge" in stderr.getvalue()
    assert "run.tool_failed" in stderr.getvalue()
    assert "1.50 s" in stderr.getvalue()


def test_terminal_is_not_driven_by_what_the_model_says() -> None:
    """Escape sequences in an answer could rewrite what stands on the operator's screen."""
    stdout = Terminal()
    screen = RunScreen(stdout, io.StringIO())

    screen.show(delta("a\x1b[2Jb\n"))

    assert "\x1b" not in stdout.getvalue()
