"""Labels are names, and one of them is ours."""

import pytest

from faos_core.errors import InvalidError
from faos_core.labels import LABELS_INVALID, check_labels


@pytest.mark.parametrize(
    "labels",
    [{"": "a"}, {"a": ""}, {"A": "a"}, {"a": "b c"}, {"site": "x"}, {f"k{n}": "v" for n in range(65)}],
)
def test_labels_that_selectors_cannot_match_are_refused(labels: dict[str, str]) -> None:
    """The site's own label is set at enrolment; the others are names."""
    with pytest.raises(InvalidError) as caught:
        check_labels(labels, owner="s")

    assert caught.value.code is LABELS_INVALID
    assert caught.value.why


def test_labels_that_are_names_pass() -> None:
    """The refusal above must not refuse everything."""
    assert check_labels({"floor": "two", "gpu": "0"}, owner="s") == {"floor": "two", "gpu": "0"}
