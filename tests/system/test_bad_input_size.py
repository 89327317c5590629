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


async def test_ten_thousand_resources_in_one_apply_run_and_one_more_is_refused(
    tmp_path: Path,
) -> None:
    """Who generates configuration has many: neither a time-out, nor a revision that every node refuses."""
    async with Site(tmp_path) as site:
        began_s = time.monotonic()
        await site.apply(*[allow_all(f"rules-{number:05}") for number in range(MANY)])
        applied_s = time.monotonic() - began_s
        await site.converged()
        healthy_s = time.monotonic() - began_s
        print(f"\n{MANY} resources: stored in {applied_s:.1f} s, healthy after {healthy_s:.1f} s")  # noqa: T201  # a figure
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await site.apply(allow_all("one-more"))

        said = str(caught.value.details()) + str(caught.value.trailing_metadata())
        assert "config.revision_too_large" in said
        assert f"{MANY + 1} resources" in said
        assert len(site.node.running.activation.running().policies) == MANY
        assert (await site.facts()).desired_revision == 1
