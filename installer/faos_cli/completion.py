"""What a shell completes: kinds by heart, names by asking the control plane, for a moment and in silence.

Whoever presses Tab waits. So what needs no question asks none, a question has a moment, and what fails completes
nothing: the command itself says what is wrong.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

ANSWER_WITHIN_S = 1.5
LISTED = 200  # names; of more, the shell shows none usefully
RESOURCES = ("agents", "models", "toolservers", "knowledgebases", "policies")
# Plurals of what `faos get` lists (faos_cli.listings); here, because a shell must not wait for gRPC's import.
KINDS = ("nodes", "sites", "tenants", "resources", *RESOURCES, "revisions", "join-tokens", "events", "audit")
DESCRIBED = ("node", "revision", "agent", "model", "toolserver", "knowledgebase", "policy")


def kinds(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Of `faos get`."""
    return items(KINDS, incomplete)


def described_kinds(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Of `faos describe`."""
    return items(DESCRIBED, incomplete)


def names(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Of the kind that stands before it."""
    return items(asked(ctx, str(ctx.params.get("kind") or "")), incomplete)


def targets(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """KIND, then names of it."""
    given: Sequence[str] = ctx.params.get("targets") or ()
    if not given:
        return items(RESOURCES, incomplete)
    return items((name for name in asked(ctx, given[0]) if name not in given), incomplete)


def nodes(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return items(asked(ctx, "nodes"), incomplete)


def agents(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return items(asked(ctx, "agents"), incomplete)


def revisions(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return items(asked(ctx, "revisions"), incomplete)


def contexts(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of contexts; of no help where their file cannot be used."""
    from faos_cli.contexts import Contexts
    from faos_core.errors import FaosError

    try:
        return items(Contexts.of_user(os.environ).all(), incomplete)
    except FaosError:
        return []


def items(values: Any, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(value) for value in values if value.startswith(incomplete)]


def asked(ctx: click.Context, kind: str) -> list[str]:
    """Names of that kind; none when it cannot be found out at once."""
    import asyncio

    import faos_cli.admin_client
    import faos_cli.listings  # noqa: F401  # before the clock starts: the imports take as long as the answer
    from faos_core.errors import FaosError

    try:
        return asyncio.run(asyncio.wait_for(fetched(ctx, kind), ANSWER_WITHIN_S))
    except (FaosError, click.UsageError, OSError, TimeoutError):
        return []


async def fetched(ctx: click.Context, kind: str) -> list[str]:
    from faos_cli.admin_client import choose_tenant, connect
    from faos_cli.context import find_context
    from faos_cli.listings import listing_named

    given = {"admin_address": "server", "ca_file": "ca", "token_file": "token_file", "tenant": "tenant"}
    flags = {key: ctx.params.get(flag) for key, flag in given.items()}
    named = ctx.find_root().params.get("context_file")
    context = find_context(named, os.environ, Path.cwd()).overridden(**flags)
    listing = listing_named(kind)
    async with connect(context) as client:
        tenant = "" if listing.plural == "tenants" else await choose_tenant(client, context.tenant)
        return [listing.name_of(item) for item in await listing.fetch(client, tenant, LISTED)]
