"""What a person may type next, as it has to be typed here."""

import os
import shutil
import sys
from pathlib import Path

from faos_cli.up.layout import Layout
from faos_cli.up.memory import Memory
from faos_cli.up.ports import ADMIN_PORT, TUNNEL_PORT
from faos_cli.up.screen import Screen, shown

QUESTION = "Which patients may not be moved down the stairs in a fire?"


def program() -> str:
    """`faos`, with its folder where the user's shell would not find it (make's PATH is not the shell's)."""
    beside = Path(sys.executable).parent / "faos"
    if shutil.which("faos") and "MAKELEVEL" not in os.environ:
        return "faos"
    return shown(beside) if beside.exists() else "faos"


def tell_what_next(screen: Screen, layout: Layout) -> None:
    faos = program()
    if layout.root != Path.cwd() / ".faos":
        faos += f" --context {shown(layout.context)}"
    screen.heading("Try next, in another terminal")
    for command, what in (
        (f'{faos} run assistant "{QUESTION}"', "ask the agent yourself"),
        (f"{faos} runs", "every run, and its steps: … run show ID"),
        (f"{faos} get nodes", "who is there and what they run"),
        (f"{faos} ledger show", "every message that left this site"),
        (f"{faos} ledger verify", "check it"),
    ):
        screen.line(f"  {command}")
        screen.line(screen.styled(f"      {what}", "dim"))
    screen.line(f"  Put documents of your own into {shown(layout.handbook)}, then start again.")


def about_ports(tunnel: int, admin: int, *, before: Memory, asked: bool) -> str:
    """A word when other ports than usual were chosen; "" when there is nothing to say."""
    usual = (before.tunnel_port or TUNNEL_PORT, before.admin_port or ADMIN_PORT)
    if asked or (tunnel, admin) == usual:
        return ""
    return f"Ports {usual[0]} and {usual[1]} are not both free; this folder has {tunnel} and {admin} from now on."
