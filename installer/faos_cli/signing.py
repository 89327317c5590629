"""A change that is signed on this machine: prepared by the control plane, checked here, shown, signed, handed in."""

import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, TypeVar, cast

import click
from securesystemslib.signer import Key

from faos.admin.v1 import admin_pb2 as admin
from faos_cli.errors import NOT_CONFIRMED
from faos_cli.key_errors import NOT_THE_PUBLISHER
from faos_cli.key_references import OpenKey, open_key, signing
from faos_cli.prepared import Checked, check
from faos_cli.publisher_memory import PublisherMemory
from faos_core import publisher
from faos_core.errors import DeniedError, SetupError

R = TypeVar("R")
PUBLISHER = publisher.MOVABLE[1]
Confirm = Callable[[Checked], None]


@dataclass(frozen=True, slots=True)
class Signing:
    """How the operator signs. `confirm` shows what would be signed, and raises when it must not be."""

    reference: str
    memory: PublisherMemory
    confirm: Confirm
    adopt: bool = False
    opened: list[OpenKey] = field(default_factory=list)  # of one command, so that its PIN is asked for once

    def key(self, named: Sequence[Key]) -> OpenKey:
        if not self.opened:
            self.opened.append(open_key(self.reference, named=named))
        return self.opened[0]

    def signed(self, asked: R, prepared: admin.PreparedRevision) -> R:
        """The request, a ChangeRequest, with the publisher's signature over what it comes to.

        Raises: IntegrityError, DeniedError (not what was asked for, or not vouched for), SetupError (the key; nobody to
            confirm it).
        """
        publisher.check_chain(prepared.roots)
        request: Any = asked
        named = publisher.keys_of(prepared.roots[-1], PUBLISHER)
        key = self.key(named)
        require_publisher(key, named, request.tenant)
        checked = check(request, prepared, key.public_key, adopt=self.adopt)
        self.memory.check(key.public_key.keyid, checked.tenant, first_root=prepared.roots[0], base=checked.base)
        self.confirm(checked)
        answer: Any = deepcopy(request)
        answer.signed_targets = sign(key, checked, prepared.roots[-1])
        return cast(R, answer)

    def published(self, prepared: admin.PreparedRevision) -> None:
        """Remember that it stands; where that cannot be, it is said."""
        self.memory.keep(
            self.opened[0].public_key.keyid,
            tenant_of(prepared),
            f"Revision {prepared.revision}",
            first_root=prepared.roots[0],
            revision=prepared.revision,
            manifest_sha256=sha256(prepared.manifest).digest(),
        )


def tenant_of(prepared: admin.PreparedRevision) -> str:
    from faos.resource.v1.resource_pb2 import Manifest

    return Manifest.FromString(prepared.manifest).tenant


def require_publisher(key: OpenKey, named: Sequence[Key], tenant: str) -> None:
    """Raises SetupError when the root names others."""
    if key.public_key not in named:
        keyids = ", ".join(each.keyid[:16] for each in named)
        facts = {"reference": key.reference, "tenant": tenant, "keyid": key.public_key.keyid[:16]}
        raise SetupError(NOT_THE_PUBLISHER, **facts, named=keyids)


def sign(key: OpenKey, checked: Checked, root: bytes) -> bytes:
    """TUF targets metadata, made here from the manifest that was checked. root: that nodes will check it by.

    Raises: SetupError (the key), InvalidError (its signature is not one that nodes take).
    """
    what = {"manifest": checked.manifest, "revision": checked.revision}
    now = datetime.now(UTC)
    with signing(key.reference):
        targets = publisher.sign_targets(key.signer, now=now, **what)  # type: ignore[arg-type]  # bytes and int
    publisher.check_targets(root, targets, now=now, **what)  # type: ignore[arg-type]  # as above
    return targets


def confirming(*, assume_yes: bool) -> Confirm:
    """Shows the difference on standard error, and asks on the terminal unless told that the answer is yes."""

    def confirm(checked: Checked) -> None:
        show(checked)
        require_yes(f"Sign revision {checked.revision} of tenant {checked.tenant}?", assume_yes=assume_yes)

    return confirm


def require_yes(question: str, *, assume_yes: bool) -> None:
    """Raises SetupError where there is nobody to ask, DeniedError where the answer is no."""
    if assume_yes:
        return
    if not sys.stdin.isatty():
        raise SetupError(NOT_CONFIRMED)
    if not click.confirm(question, err=True):
        raise DeniedError(NOT_CONFIRMED)


def show(checked: Checked) -> None:
    from faos_cli.commands.diff import coloured_line, lines_of
    from faos_cli.prepared import shown

    for change in checked.changes:
        for line in lines_of(change, checked.base.revision, f"revision {checked.revision}"):
            click.echo(coloured_line(line), err=True)
    for name in checked.adopted:
        click.echo(f"adopted, never signed by this key before: {shown(name)}", err=True)
    if not checked.changes:
        click.echo(f"The content of revision {checked.base.revision}, unchanged.", err=True)
