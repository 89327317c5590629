"""The gate: the only way to bytes that may be sent. DESIGN section 6."""

from collections.abc import Mapping

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from data_plane.ceiling.models import DoorCeiling
from data_plane.egress.doors import ORDER, ceiling_of
from data_plane.egress.errors import ABOVE_CEILING, FIELD_UNCLASSIFIED, IDENTIFIER_UNKNOWN
from data_plane.egress.field_rules import IDENTIFIER, FieldRule, rules_of
from data_plane.egress.identifiers import KnownIdentifiers
from data_plane.egress.interfaces import Identifiers, LedgerHead
from data_plane.egress.ledger import Entry, Ledger
from faos.options.v1 import options_pb2 as options
from faos_core.clock import Clock
from faos_core.errors import DeniedError

RECENT_HEADS = 1024


class EgressGate:
    """Implements `interfaces.Gate` (and the tunnel's Sealer). Lives as long as its ledger; any number of tasks of
    one event loop. Messages are recorded in the order of the calls of `seal`; send them in the order of return."""

    def __init__(
        self, ledger: Ledger, identifiers: Identifiers, *, doors: Mapping[str, DoorCeiling], clock: Clock
    ) -> None:
        self._ledger = ledger
        self._identifiers = identifiers
        self._heads = KnownIdentifiers(capacity=RECENT_HEADS)  # of its own, so that heads push out nothing else
        self._doors = dict(doors)
        self._clock = clock
        self._rules: dict[Descriptor, dict[int, FieldRule]] = {}

    async def seal(self, message: Message, *, door: str, destination: str, method: str) -> bytes:
        """See `interfaces.Gate.seal`. The message is copied first: later changes to it have no effect."""
        clean = type(message)()
        clean.CopyFrom(message)
        clean.DiscardUnknownFields()
        counts = self._inspect(clean, door)
        body = clean.SerializeToString(deterministic=True)
        entry = Entry(
            at=self._clock.now(),
            door=door,
            destination=destination,
            method=method,
            message=clean.DESCRIPTOR.full_name,
            fields_by_class=counts,
            body=body,
            keep_body="CUSTOMER" not in counts,
        )
        await self._ledger.append(entry)
        return body

    def head(self) -> LedgerHead:
        """Head over everything that is durable. Its root is an identifier from now on, so that it can be sent."""
        head = self._ledger.head()
        self._heads.allow(head.root_sha256)
        return head

    def _inspect(self, message: Message, door: str) -> dict[str, int]:
        """Set fields by class. Raises DeniedError for the first that may not leave."""
        inspection = Inspection(self, message.DESCRIPTOR.full_name, door, ceiling_of(door, self._doors))
        inspection.walk(message, "")
        return {class_name(number): count for number, count in sorted(inspection.counts.items())}

    def knows(self, value: str | bytes) -> bool:
        return value in self._identifiers or value in self._heads

    def rules_of(self, descriptor: Descriptor) -> dict[int, FieldRule]:
        """Cached: options do not change while a process runs."""
        if descriptor not in self._rules:
            self._rules[descriptor] = rules_of(descriptor)
        return self._rules[descriptor]


class Inspection:
    """One walk over the set fields of a message."""

    def __init__(self, gate: EgressGate, message: str, door: str, ceiling: DoorCeiling) -> None:
        self._gate = gate
        self._message = message
        self._door = door
        self._ceiling = ceiling
        self._highest = ORDER.index(ceiling) + 1
        self.counts: dict[int, int] = {}

    def walk(self, message: Message, prefix: str) -> None:
        rules = self._gate.rules_of(message.DESCRIPTOR)  # type: ignore[arg-type]  # its C twin, same attributes
        for field, value in message.ListFields():
            path = prefix + field.name
            rule = rules.get(field.number)
            if rule is None:  # an extension: no schema of ours has one
                raise self._denied(path)
            if rule.has_values:
                self._judge(rule, value, path)
            if rule.descends:
                for child in rule.messages(value):
                    self.walk(child, path + ".")

    def _judge(self, rule: FieldRule, value: object, path: str) -> None:
        if rule.data_class == options.DATA_CLASS_UNSPECIFIED:
            raise self._denied(path)
        if rule.data_class > self._highest:
            names = {"data_class": class_name(rule.data_class), "ceiling": self._ceiling.value}
            raise DeniedError(ABOVE_CEILING, message=self._message, field=path, door=self._door, **names)
        if rule.data_class == IDENTIFIER and not all(map(self._gate.knows, rule.texts(value))):
            raise DeniedError(IDENTIFIER_UNKNOWN, message=self._message, field=path, door=self._door)
        self.counts[rule.data_class] = self.counts.get(rule.data_class, 0) + 1

    def _denied(self, path: str) -> DeniedError:
        return DeniedError(FIELD_UNCLASSIFIED, message=self._message, field=path, door=self._door)


CLASS_NAMES: dict[int, str] = {number: name.removeprefix("DATA_CLASS_") for name, number in options.DataClass.items()}


def class_name(number: int) -> str:
    """OPERATIONAL, IDENTIFIER or CUSTOMER."""
    return CLASS_NAMES[number]
