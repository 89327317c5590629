"""JSON into protobuf's Struct."""

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from faos.site.v1 import site_pb2 as site
from faos_core.structs import fill

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(SCALARS, lambda it: st.lists(it, max_size=4) | st.dictionaries(st.text(), it, max_size=4))
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=5)


@given(OBJECTS)
def test_it_is_what_the_library_makes(values: dict[str, Any]) -> None:
    """Ours is there for its speed alone."""
    ours, theirs = Struct(), Struct()
    fill(ours, values)
    theirs.update(values)

    assert ours == theirs
    assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)


def test_an_empty_one_is_present() -> None:
    """A step with an empty result has one; a step without has none."""
    step = site.Step()

    fill(step.result, {})

    assert step.HasField("result")
    assert not step.HasField("request")


def test_empty_values_are_kept_apart() -> None:
    """Null, an empty list and an empty object are three things."""
    struct = Struct()

    fill(struct, {"nothing": None, "list": [], "object": {}, "tuple": (1, [2])})

    assert MessageToDict(struct) == {"nothing": None, "list": [], "object": {}, "tuple": [1.0, [2.0]]}


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object()])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    """Rather than left out."""
    with pytest.raises(ValueError, match="not a value of JSON"):
        fill(Struct(), {"key": [value]})
