"""What a person sees: steps with their times, progress on a terminal, answers as they come."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

BAR_CELLS = 28
CLEAR_LINE = "\r\x1b[2K"
STYLES = {"green": "32", "red": "31", "yellow": "33", "dim": "2", "bold": "1"}
TITLE_CELLS = 16


@dataclass
class Screen:
    """Lines on a terminal or in a pipe; only a terminal gets colours and lines that change."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    times_s: dict[str, float] = field(default_factory=dict)  # how long each step took, by its title

    @property
    def is_live(self) -> bool:
        return self.out.isatty() and self.environment.get("TERM") != "dumb"

    def line(self, text: str = "") -> None:
        self._write(text + "\n")

    def write(self, text: str) -> None:
        """A piece of a line."""
        self._write(text)

    def mark(self, is_right: bool, title: str, text: str) -> None:
        sign = self.styled("✓", "green") if is_right else self.styled("✗", "red")
        self.line(f"{sign} {title:<{TITLE_CELLS}} {text}")

    def heading(self, text: str) -> None:
        self.line()
        self.line(self.styled(text, "bold"))

    @contextmanager
    def step(self, title: str) -> Iterator["Step"]:
        """A step that is told when it is done; what fails is told by the error."""
        step = Step(self, title)
        step.say("…")
        try:
            yield step
        except BaseException:
            step.leave()
            raise
        self.times_s[title] = time.monotonic() - step.began_s
        step.leave()
        took = self.styled(f"{self.times_s[title]:5.1f} s", "dim")
        self.mark(True, title, f"{took}  {step.outcome}")

    def styled(self, text: str, style: str) -> str:
        if not self.is_live or self.environment.get("NO_COLOR"):
            return text
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m"

    def _write(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()


@dataclass
class Step:
    """A step in progress. Set `outcome` to what the finished line shall say."""

    screen: Screen
    title: str
    outcome: str = ""
    began_s: float = field(default_factory=time.monotonic)
    _said: str = ""

    def say(self, text: str) -> None:
        """How far it is: replaces what was said before on a terminal, says nothing in a pipe."""
        if self.screen.is_live and text != self._said:
            self._said = text
            self.screen.write(f"{CLEAR_LINE}· {self.title:<{TITLE_CELLS}} {text}")

    def progress(self, label: str, done: int, total: int) -> None:
        """A bar; in a pipe one line per label."""
        if self.screen.is_live:
            filled = round(BAR_CELLS * done / total)
            bar = "█" * filled + "░" * (BAR_CELLS - filled)
            self.say(f"{bar} {done / 1e6:5.1f} of {total / 1e6:.1f} MB  {label}")
        elif label != self._said:
            self._said = label
            self.screen.line(f"· {self.title:<{TITLE_CELLS}} fetching {label}, {total / 1e6:.1f} MB")

    def leave(self) -> None:
        if self.screen.is_live:
            self.screen.write(CLEAR_LINE)


def shown(path: Path) -> str:
    """A path as short as it can be said from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
