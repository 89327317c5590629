"""faos tenant publisher · faos tenant root: who signs for a tenant, and how that moves off the control plane."""

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import click

from faos_cli.options import output_option, with_control_plane

if TYPE_CHECKING:
    from faos.admin.v1 import admin_pb2 as admin
    from faos_cli.admin_client import AdminClient
    from faos_cli.context import Context
    from faos_cli.key_references import OpenKey

ROOT_SUFFIX = " (root)"  # of a tenant's name, where a root's versions are remembered
HERE, ELSEWHERE = "at the control plane", "elsewhere"
KEY = click.option(
    "--key", "reference", required=True, metavar="KEYREF", help="file:PATH, hsm:ID?label=TOKEN, pkcs11:…"
)
ROOT_KEY = click.option("--root-key", metavar="KEYREF", help="Root key, where the control plane has none any more.")
YES = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


@click.group("publisher")
def publisher() -> None:
    """Who signs a tenant's revisions: the control plane itself, or somebody with a key of their own."""


@publisher.command("show")
@output_option("text", "json")
@with_control_plane
def show(context: "Context", output: str) -> None:
    """Show which keys sign for the tenant, and where they are.

    \b
    Examples:
      faos tenant publisher show
    """
    from faos_cli.output import print_facts, print_json

    facts = run(context, facts_of)
    print_json(facts) if output == "json" else print_facts(facts)


@publisher.command("set")
@KEY
@ROOT_KEY
@YES
@with_control_plane
def set_publisher(context: "Context", reference: str, root_key: str | None, yes: bool) -> None:
    """Make the holder of a key the tenant's publisher: a new root names it, and it signs what stands. From then on
    the control plane cannot publish for the tenant; its own key is destroyed.

    The root's key can name another publisher again. While that is at the control plane, so is the last word:
    move it too, with `faos tenant root set`.

    \b
    Examples:
      faos key generate publisher.key
      faos tenant publisher set --key file:publisher.key
      faos tenant publisher set --key "hsm:2?label=faos" --root-key file:root.key
      faos apply -f resources/ --sign file:publisher.key
    """

    async def use(client: "AdminClient", tenant: str) -> None:
        await move_publisher(client, tenant, reference, root_key, yes=yes)

    run(context, use)


@click.group("root")
def root() -> None:
    """Who names a tenant's publisher: its TUF root."""


@root.command("set")
@KEY
@ROOT_KEY
@YES
@with_control_plane
def set_root(context: "Context", reference: str, root_key: str | None, yes: bool) -> None:
    """Make the holder of a key the tenant's root. From then on nobody else can name another publisher or root, and
    the root must be renewed with that key once a year.

    \b
    Examples:
      faos tenant root set --key file:root.key
      faos tenant root set --key hsm:3 --root-key file:root.key     from one key to another
    """
    from faos_cli.signing import require_yes

    require_yes("Without that key nobody can replace the publisher's key, ever. Have you a copy?", assume_yes=yes)

    async def use(client: "AdminClient", tenant: str) -> None:
        await move_root(client, tenant, reference, root_key)

    run(context, use)


@root.command("renew")
@ROOT_KEY
@with_control_plane
def renew(context: "Context", root_key: str | None) -> None:
    """Sign the root for another year. The control plane does it by itself while it has the key.

    \b
    Examples:
      faos tenant root renew --root-key file:root.key
    """

    async def use(client: "AdminClient", tenant: str) -> None:
        await renew_root(client, tenant, root_key)

    run(context, use)


def run(context: "Context", use: Any) -> Any:
    """What `use` gives with a client and the tenant."""
    from faos_cli.admin_client import choose_tenant
    from faos_cli.commands.tenancy import call

    async def chosen(client: "AdminClient") -> Any:
        return await use(client, await choose_tenant(client, context.tenant))

    return call(context, chosen)


async def trust_of(client: "AdminClient", tenant: str) -> "admin.GetTrustResponse":
    """Raises IntegrityError when its roots do not follow from each other."""
    from faos.admin.v1 import admin_pb2 as admin
    from faos_core.publisher import check_chain

    trust = await client.call(client.trust.GetTrust, admin.GetTrustRequest(tenant=tenant))
    check_chain(trust.roots)
    return trust


async def facts_of(client: "AdminClient", tenant: str) -> dict[str, str]:
    from faos_core.publisher import expires_at, keys_of, root_of

    trust = await trust_of(client, tenant)
    last = trust.roots[-1]
    places = {"root": trust.has_root_key, "targets": trust.has_publisher_key}
    keyids = {role: ", ".join(key.keyid for key in keys_of(last, role)) for role in places}
    facts = {
        "tenant": tenant,
        "publisher": f"{keyids['targets']} ({HERE if places['targets'] else ELSEWHERE})",
        "root": f"{keyids['root']} ({HERE if places['root'] else ELSEWHERE})",
        "root version": f"{root_of(last).version}, until {expires_at(last):%Y-%m-%d}",
    }
    if trust.HasField("renewal"):
        until = expires_at(trust.renewal.base.targets)
        facts["signed"] = f"revision {trust.renewal.revision - 1}, until {until:%Y-%m-%d}"
    return facts


async def move_publisher(
    client: "AdminClient", tenant: str, reference: str, root_key: str | None, *, yes: bool
) -> None:
    from faos_cli.key_references import open_key
    from faos_cli.prepared import check_renewal
    from faos_cli.signing import PUBLISHER, confirming, sign
    from faos_core.publisher import keys_of

    trust = await trust_of(client, tenant)
    key = open_key(reference)
    if keys_of(trust.roots[-1], PUBLISHER) == [key.public_key]:
        click.echo(f"{key.public_key.keyid} is the publisher of tenant {tenant} already.")
        return
    proposed, signers = next_root(tenant, trust, root_key, publisher=key.public_key)
    targets = b""
    if trust.HasField("renewal"):
        checked = check_renewal(tenant, trust.renewal, key.public_key)
        confirming(assume_yes=yes)(checked)
        targets = sign(key, checked, proposed)
    answer = await rotate(client, tenant, trust, proposed, signers, targets)
    if trust.HasField("renewal"):
        number = trust.renewal.revision
        remember(key, tenant, f"Revision {number}", trust, number, trust.renewal.manifest)
    click.echo(f"tenant/{tenant}: {key.public_key.keyid} is the publisher now (root version {answer.root_version}).")
    if targets:
        click.echo(f"Revision {answer.revision}, the same content, is signed by it.")
    if trust.has_root_key:
        click.echo(
            "warning: the root's key is still at the control plane, which can name another publisher with it.\n"
            "  next: faos key generate root.key && faos tenant root set --key file:root.key",
            err=True,
        )


def remember(
    key: "OpenKey", name: str, what: str, trust: "admin.GetTrustResponse", version: int, signed: bytes
) -> None:
    """What this key has signed, and what stands now: it is not to be asked for anything older."""
    import os

    from faos_cli.publisher_memory import PublisherMemory

    seen = {"first_root": trust.roots[0], "revision": version, "manifest_sha256": sha256(signed).digest()}
    PublisherMemory.of_user(os.environ).keep(key.public_key.keyid, name, what, **seen)


async def move_root(client: "AdminClient", tenant: str, reference: str, root_key: str | None) -> None:
    from faos_cli.key_references import open_key

    trust = await trust_of(client, tenant)
    key = open_key(reference)
    proposed, signers = next_root(tenant, trust, root_key, root_key=key.public_key, more_signers=[key])
    answer = await rotate(client, tenant, trust, proposed, signers)
    click.echo(f"tenant/{tenant}: {key.public_key.keyid} is the root now (version {answer.root_version}).")
    click.echo("Keep it apart from the publisher's key, and keep a copy.", err=True)


async def renew_root(client: "AdminClient", tenant: str, root_key: str | None) -> None:
    from faos_core.publisher import expires_at

    trust = await trust_of(client, tenant)
    proposed, signers = next_root(tenant, trust, root_key)
    answer = await rotate(client, tenant, trust, proposed, signers)
    click.echo(f"tenant/{tenant}: root version {answer.root_version} holds until {expires_at(proposed):%Y-%m-%d}.")


def next_root(
    tenant: str,
    trust: "admin.GetTrustResponse",
    old: str | None,
    *,
    more_signers: "Sequence[OpenKey]" = (),
    **keys: Any,
) -> "tuple[bytes, list[OpenKey]]":
    """The root after the present one, and the keys here that signed it; the control plane adds its own signature.

    old: reference of the root's present key; None: it is at the control plane. keys: as of faos_core.publisher.
    Raises: IntegrityError (a root that the present key did not sign, or older than it was), SetupError (keys).
    """
    from datetime import UTC, datetime

    from faos_cli.key_references import signing
    from faos_core import publisher as publishing

    proposed = publishing.next_root(trust.roots[-1], now=datetime.now(UTC), **keys)
    signers = [*([present_root_key(tenant, trust, old)] if old else []), *more_signers]
    for key in signers:
        with signing(key.reference):
            proposed = publishing.with_signature(proposed, key.signer)
    return proposed, signers


def present_root_key(tenant: str, trust: "admin.GetTrustResponse", reference: str) -> "OpenKey":
    """The root's key. It signs only what follows from a root that it signed before: the control plane may have made up
    everything else."""
    import os

    from faos_cli.key_errors import NOT_THE_ROOT
    from faos_cli.key_references import open_key
    from faos_cli.prepared import Known
    from faos_cli.publisher_memory import PublisherMemory
    from faos_core.errors import IntegrityError
    from faos_core.publisher import MOVABLE, is_root_signed_by, keys_of, root_of, signed_part

    last = trust.roots[-1]
    key = open_key(reference, named=keys_of(last, MOVABLE[0]))
    if not is_root_signed_by(key.public_key, last):
        raise IntegrityError(NOT_THE_ROOT, reference=reference, tenant=tenant, keyid=key.public_key.keyid[:16])
    base = Known(root_of(last).version, {}, sha256(signed_part(last)).digest(), is_signed=True)
    memory, name = PublisherMemory.of_user(os.environ), f"{tenant}{ROOT_SUFFIX}"
    memory.check(key.public_key.keyid, name, first_root=trust.roots[0], base=base)
    return key


async def rotate(
    client: "AdminClient",
    tenant: str,
    trust: "admin.GetTrustResponse",
    proposed: bytes,
    signers: "Sequence[OpenKey]",
    targets: bytes = b"",
) -> "admin.RotateRootResponse":
    """Hand the root in, and remember it for the keys here that signed it. Raises SetupError, before, when what is
    remembered here cannot be read."""
    import os

    from faos.admin.v1 import admin_pb2 as admin
    from faos_cli.admin_client import again_while_unavailable
    from faos_cli.publisher_memory import PublisherMemory
    from faos_core.publisher import signed_part

    PublisherMemory.of_user(os.environ).require_usable()
    request = admin.RotateRootRequest(tenant=tenant, root=proposed, signed_targets=targets)
    answer = await again_while_unavailable(lambda: client.call(client.trust.RotateRoot, request))
    for key in signers:
        what = f"Root version {answer.root_version}"
        remember(key, f"{tenant}{ROOT_SUFFIX}", what, trust, answer.root_version, signed_part(proposed))
    return answer
