"""Labels: what sites and nodes are selected by."""

from collections.abc import Mapping

from faos_core.errors import InvalidError, define
from faos_core.ids import NAME_PATTERN

MAX_LABELS = 64
SITE_LABEL = "site"  # enrolment sets it to the site's name; nobody else may

LABELS_INVALID = define(
    "labels.invalid",
    what="The labels of {owner} cannot be used.",
    why="{reason}",
    next_step="Give at most 64 labels such as floor=two, of a-z, 0-9 and '-'; FAOS itself sets 'site'.",
)


def is_label(key: str, value: str) -> bool:
    return bool(NAME_PATTERN.fullmatch(key) and NAME_PATTERN.fullmatch(value))


def check_labels(labels: Mapping[str, str], *, owner: str) -> dict[str, str]:
    """The labels themselves, as a person may set them. Raises InvalidError; `owner` is whose they are."""
    if len(labels) > MAX_LABELS:
        raise InvalidError(LABELS_INVALID, owner=owner, reason=f"There are {len(labels)} of them.")
    for key, value in labels.items():
        if not is_label(key, value) or key == SITE_LABEL:
            raise InvalidError(LABELS_INVALID, owner=owner, reason=f"{key[:80]!r} = {value[:80]!r} is not a label.")
    return dict(labels)
