"""A run as it is streamed: the answer on standard output, its steps on standard error."""

import sys
from typing import IO

import click

from faos.site.v1 import site_pb2 as site
from faos_cli.output import duration, enum_text, is_decorated, printable
from faos_cli.timeline import step_summary


class AnswerText:
    """The answer as far as it has been shown. A step that is told again after an interruption shows only what is new.

    Pure: every method returns what to write.
    """

    def __init__(self) -> None:
        self.shown = ""
        self._heard = ""

    def begin(self) -> str:
        """A step starts, or starts again."""
        self._heard = ""
        return ""

    def hear(self, text: str) -> str:
        self._heard += text
        return self._catch_up(self._heard)

    def finish(self, output: str) -> str:
        """The whole answer, which counts, however much of it came in pieces. Ends the line."""
        if self.shown.strip() == output.strip():
            return "\n" if self.shown else ""
        return self._catch_up(output) + "\n"

    def _catch_up(self, text: str) -> str:
        """What is missing of `text`; on a new line and whole where something else was shown."""
        if self.shown.startswith(text):
            return ""
        fresh = text[len(self.shown) :] if text.startswith(self.shown) else f"\n{text}"
        self.shown = text
        return fresh


class RunScreen:
    """Shows the events of one run. Without a terminal, standard output gets the finished answer only, once."""

    def __init__(self, stdout: IO[str], stderr: IO[str]) -> None:
        self._live = stdout.isatty()
        self._shows_steps = stderr.isatty()
        self._stdout = stdout
        self._stderr = stderr
        self._answer = AnswerText()
        self.ending: site.RunFinished | None = None
        self.run_id = ""

    def show(self, event: site.RunEvent, *, silently: bool = False) -> None:
        """silently: only take note of run and ending."""
        self.run_id = event.run_id
        if silently:
            self.ending = event.finished if event.HasField("finished") else None
            return
        match event.WhichOneof("event"):
            case "step_started":
                self._answer.begin()
            case "text_delta":
                self._say(self._answer.hear(event.text_delta.text) if self._live else "")
            case "step_finished":
                self._tell_step(event.step_finished.step)
            case "finished":
                self.ending = event.finished
                self._say(self._answer.finish(event.finished.output))

    def _say(self, text: str) -> None:
        """On a terminal without what would drive it; into a pipe as it is."""
        self._stdout.write("\n".join(map(printable, text.split("\n"))) if self._live else text)
        self._stdout.flush()

    def _tell_step(self, step: site.Step) -> None:
        if not self._shows_steps or is_streamed(step):
            return
        took_s = (step.finished_at.ToNanoseconds() - step.started_at.ToNanoseconds()) / 1e9
        line = f"· {enum_text(step, 'kind').lower()} {step.name}  {printable(step_summary(step))}  {duration(took_s)}"
        self._stderr.write(click.style(line, dim=True) + "\n" if is_decorated(self._stderr) else line + "\n")
        self._stderr.flush()


def is_streamed(step: site.Step) -> bool:
    """Whether the step's text is on the screen already."""
    return step.kind == site.STEP_KIND_MODEL and dict(step.request).get("purpose") == "answer" and not step.error_code


def screen() -> RunScreen:
    return RunScreen(sys.stdout, sys.stderr)
