"""Records as the topics carry them: CloudEvents 1.0 in binary mode, with JSON data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from confluent_kafka import Message

Data = dict[str, Any]


class Place(NamedTuple):
    """A partition of a topic. All order there is, is the order within one."""

    topic: str
    partition: int

    @classmethod
    def of(cls, message: Message) -> Place:
        """Where a message of Kafka's was read."""
        topic, partition = message.topic(), message.partition()
        assert topic is not None and partition is not None, "what was read was read somewhere"
        return cls(topic, partition)


@dataclass(frozen=True)
class Record:
    """One event. It may come several times, the same each time, but for content that was deleted or erased since."""

    place: Place
    offset: int
    """Where Kafka keeps it. Of no meaning: after a wipe the same event stands elsewhere."""
    sequence: int
    """Where Parlance's log keeps it: from 1, without a gap in the partition, the same for ever."""
    type: str
    dataschema: str
    """The address of the schema of the data."""
    body: bytes

    @classmethod
    def of(cls, message: Message) -> Record:
        """The record in a message of Kafka's."""
        headers = dict(message.headers() or [])

        def text(name: str) -> str:
            return (headers[name] or b"").decode()

        offset = message.offset()
        assert offset is not None, "what was read has an offset"
        return cls(
            place=Place.of(message),
            offset=offset,
            sequence=int(text("ce_sequence")),
            type=text("ce_type"),
            dataschema=text("ce_dataschema"),
            body=message.value() or b"",
        )

    def data(self) -> Data:
        """What the event says."""
        data = json.loads(self.body)
        if not isinstance(data, dict):
            raise ValueError(f"{self}: its data are not an object")
        return data

    def __str__(self) -> str:
        return f"{self.type} at {self.place.topic}/{self.place.partition}:{self.sequence}"
