"""What the node refuses of signed resources; more of it, over whole offers, in test_applier.py."""

import pytest

from data_plane.link.admission import admit
from data_plane.link.interfaces import Configuration, ConfigurationError
from faos.resource.v1.resource_pb2 import Metadata, Resource
from faos.tunnel.v1 import tunnel_pb2 as tunnel
from tests.fixtures.resources_of_a_site import CEILING


def test_resource_without_a_spec_is_refused_like_any_other() -> None:
    """A kind newer than this node looks like that; found by make fuzz TARGET=resource."""
    with pytest.raises(ConfigurationError) as refused:
        admit([Resource(metadata=Metadata(name="time"))], CEILING, Configuration())

    assert refused.value.nack.code == tunnel.NACK_CODE_KIND_UNKNOWN
