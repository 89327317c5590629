"""As much as may be declared, and one more: it works within bounds, or is refused by name."""

import time
from pathlib import Path

import grpc
import pytest

from faos.resource.v1 import resource_pb2 as pb
from faos_core.resource_validation import MAX_RESOURCE_BYTES
from tests.system.sites import Site
from tests.system.small_site import allow_all

pytestmark = pytest.mark.needs("embedder", "model")

MANY = 10_000


def of_size(size_bytes: int) -> pb.Resource:
    """A policy that takes exactly so many bytes."""
    made = allow_all("large")
    made.policy.rules[0].arguments.update({"description": "x" * (size_bytes - 100)})
    made.policy.rules[0].arguments.update({"description": "x" * (2 * size_bytes - 100 - made.ByteSize())})
    assert made.ByteSize() == size_bytes
    return made


async def test_a_resource_of_the_maximum_size_runs_and_one_byte_more_is_refused_by_name(tmp_path: Path) -> None:
    """A limit that is stated must be the limit that is, at both of its sides."""
    async with Site(tmp_path) as site:
        await site.apply(of_size(MAX_RESOURCE_BYTES))
        await site.converged()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await site.apply(of_size(MAX_RESOURCE_BYTES + 1))

        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        said = str(caught.value.details()) + str(caught.value.trailing_metadata())
        assert "large" in said
        assert str(MAX_RESOURCE_BYTES) in said
        assert (await site.facts()).desired_revision == 1


@pytest.mark.slow
async def test_ten_thousand_resources_in_one_apply_run(tmp_path: Path) -> None:
    """A tenant that generates its configuration has many: neither a time-out nor a message that is too large."""
    resources = [allow_all(f"rules-{number:05}") for number in range(MANY)]
    async with Site(tmp_path) as site:
        began_s = time.monotonic()
        await site.apply(*resources)
        applied_s = time.monotonic() - began_s
        await site.converged()
        healthy_s = time.monotonic() - began_s
        print(f"\n{MANY} resources: stored in {applied_s:.1f} s, healthy after {healthy_s:.1f} s")  # noqa: T201  # a figure

        assert len(site.node.running.activation.running().policies) == MANY
        await site.restart()
        await site.apply(allow_all("rules-00000"), allow_all("one-more"))
        await site.converged()
        assert len(site.node.running.activation.running().policies) == MANY + 1
