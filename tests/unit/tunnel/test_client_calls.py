"""What a failed call of the node's end comes to."""

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from faos_core.errors import InternalError, UnavailableError
from tunnel.client_calls import WRITE_FAILED, mapped
from tunnel.errors import CONTROL_PLANE_UNREACHABLE

ADDRESS = "cloud.example:443"


def test_a_write_to_a_call_that_ended_is_a_connection_that_ended() -> None:
    """gRPC calls it an internal error, before the status of the call is there: about once in 1,600 refused sessions."""
    with pytest.raises(UnavailableError) as caught, mapped(ADDRESS):
        raise AioRpcError(grpc.StatusCode.INTERNAL, Metadata(), Metadata(), details=WRITE_FAILED)

    assert caught.value.code is CONTROL_PLANE_UNREACHABLE
    assert "the stream ended" in str(caught.value.fields["details"])


def test_an_internal_error_of_the_server_stays_one() -> None:
    """It is a defect over there, and no connection that ended."""
    with pytest.raises(InternalError), mapped(ADDRESS):
        raise AioRpcError(grpc.StatusCode.INTERNAL, Metadata(), Metadata(), details="something else")
