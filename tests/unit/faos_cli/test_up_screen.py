"""What is shown on a terminal and in a pipe."""

import io

import pytest

from faos_cli.up.screen import Screen


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_plain_lines_only() -> None:
    """Logs of CI are read by people too."""
    out = io.StringIO()
    screen = Screen(out, environment={})

    with screen.step("models") as step:
        step.progress("language model", 1, 10)
        step.progress("language model", 9, 10)
        step.outcome = "there"
    screen.mark(False, "search", "found")

    assert "\x1b" not in out.getvalue()
    assert out.getvalue().count("fetching language model") == 1
    assert "✓ models" in out.getvalue()
    assert "✗ search" in out.getvalue()


def test_a_terminal_gets_a_bar_on_one_line() -> None:
    """92 MB take a while; a line that moves says that something does."""
    out = Terminal()

    with Screen(out, environment={}).step("models") as step:
        step.progress("language model", 5_000_000, 10_000_000)

    assert "5.0 of 10.0 MB" in out.getvalue()
    assert out.getvalue().count("\n") == 1


def test_no_color_is_honoured_on_a_terminal() -> None:
    """no-color.org."""
    out = Terminal()

    Screen(out, environment={"NO_COLOR": "1"}).mark(True, "tool", "right")

    assert "\x1b" not in out.getvalue()


def test_a_step_that_fails_is_not_marked_done() -> None:
    """What failed is told by the error, and by nothing that looks like success."""
    out = io.StringIO()

    with pytest.raises(ValueError, match="no"), Screen(out, environment={}).step("node"):
        raise ValueError("no")

    assert "✓" not in out.getvalue()
