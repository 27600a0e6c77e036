"""Reads the topics' partitions from wherever the copy stands, and says where a record is missing."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from .records import Place
from .store import Checkpoint

TOPICS = ("parlance.users.v1", "parlance.conversations.v1")
BATCH = 500
POLL_S = 0.5
REQUEST_S = 10.0

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """Reading cannot go on as it did: it has to begin anew from the checkpoints."""


class Reader:
    """A consumer of all partitions, without a group: one process reads all, and keeps by itself how far it got."""

    def __init__(self, brokers: str, checkpoints: dict[Place, Checkpoint]) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": brokers,
                # Asked for by the library; nothing is ever committed to it.
                "group.id": "conversation-copy",
                "enable.auto.commit": False,
                # A partition shorter than the checkpoint was wiped: it is read from the beginning, and what is known
                # is dropped by its sequence.
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "topic.metadata.refresh.interval.ms": 10_000,
            },
            logger=log,
        )
        try:
            self._places = self._partitions()
        except BaseException:
            self._consumer.close()
            raise
        self._consumer.assign([self._start(place, checkpoints.get(place, Checkpoint())) for place in self._places])

    def _partitions(self) -> list[Place]:
        places: list[Place] = []
        for topic in TOPICS:
            try:
                found = self._consumer.list_topics(topic, timeout=REQUEST_S).topics[topic]
            except KafkaException as error:
                raise Interrupted(f"the partitions of {topic}: {error}") from error
            if found.error is not None or not found.partitions:
                raise Interrupted(f"there is no {topic}: {found.error}")
            places.extend(Place(topic, partition) for partition in sorted(found.partitions))
        return places

    @staticmethod
    def _start(place: Place, checkpoint: Checkpoint) -> TopicPartition:
        offset = OFFSET_BEGINNING if checkpoint.next_offset is None else checkpoint.next_offset
        return TopicPartition(place.topic, place.partition, offset)

    def batches(self) -> Iterator[tuple[list[Message], bool]]:
        """What comes, a batch at a time, for ever; and whether every partition was once read to its end by then.

        The batch may be empty.
        """
        unfinished = set(self._places)
        while True:
            messages = []
            for message in self._consumer.consume(BATCH, POLL_S):
                error = message.error()
                if error is None:
                    messages.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    unfinished.discard(Place.of(message))
                else:
                    # A topic that is gone, say. Whatever it is: what was read counts, the rest is read again.
                    raise Interrupted(str(error))
            yield messages, not unfinished

    def close(self) -> None:
        """Lets the connections go."""
        self._consumer.close()


class Patience:
    """Ends a row of vain attempts, each a while after the one before."""

    def __init__(self, seconds: float, pause: float) -> None:
        self._seconds = seconds
        self._pause = pause
        self._since: float | None = None

    def progress(self) -> None:
        """Something was got: the next failure is the first."""
        self._since = None

    def pause(self) -> bool:
        """Waits before the next attempt; false where there have been enough."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if now - self._since > self._seconds:
            return False
        time.sleep(self._pause)
        return True
