from data_plane.agents.plan import RunBounds, effective_bounds, effective_choice
from data_plane.ceiling.models import Limits
from faos.resource.v1 import resource_pb2 as resource


def test_bounds_default_to_those_of_the_schema() -> None:
    """The defaults are promised in resource.proto."""
    assert effective_bounds(resource.RunLimits(), Limits()) == RunBounds(8, 16, 2048, 300)


def test_ceiling_lowers_and_never_raises() -> None:
    """The site's limit is an upper bound, defaults included."""
    low = Limits(max_turns=1, max_tool_calls=2, max_output_tokens=3, max_seconds=4)

    assert effective_bounds(resource.RunLimits(max_turns=9, max_seconds=2), low) == RunBounds(1, 2, 3, 2)


def test_choice_without_tools_is_none() -> None:
    """REQUIRED cannot be kept without a tool; an agent whose tools are gone still answers."""
    assert effective_choice(resource.TOOL_CHOICE_REQUIRED, has_tools=False) == resource.TOOL_CHOICE_NONE
    assert effective_choice(resource.TOOL_CHOICE_UNSPECIFIED, has_tools=True) == resource.TOOL_CHOICE_ROUTED
