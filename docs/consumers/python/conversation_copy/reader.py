"""Reads the topics' partitions from wherever the copy stands, and says where a record is missing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, TopicDescription

from .records import Place
from .store import Checkpoint

TOPICS = ("parlance.users.v1", "parlance.conversations.v1")
BATCH = 500
POLL_S = 0.5
REQUEST_S = 10.0
WATCH_S = 10.0
"""How often it is looked whether the topics are the same ones still."""

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """Reading cannot go on as it did: it has to begin anew from the checkpoints."""


class Reader:
    """A consumer of all partitions, without a group: one process reads all, and keeps by itself how far it got."""

    def __init__(self, brokers: str, adopt: Callable[[dict[str, str]], dict[Place, Checkpoint]]) -> None:
        """`adopt` is told the ids of the topics, and answers where to go on in them."""
        self._admin = AdminClient({"bootstrap.servers": brokers}, logger=log)
        try:
            topics = self._describe()
        except KafkaException as error:
            raise Interrupted(f"the topics cannot be read: {error}") from error
        self._ids = _ids(topics)
        self._places = [Place(topic.name, partition.id) for topic in topics for partition in topic.partitions]
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
            },
            logger=log,
        )
        checkpoints = adopt(self._ids)
        self._consumer.assign([self._start(place, checkpoints.get(place, Checkpoint())) for place in self._places])

    def _describe(self) -> list[TopicDescription]:
        answers = self._admin.describe_topics(TopicCollection(list(TOPICS)), request_timeout=REQUEST_S)
        return [answer.result() for answer in answers.values()]

    def _look(self) -> None:
        """Sees whether a topic was made anew.

        The library does not tell: it takes the new one's leaders for old news, since they are counted from 0 again, and
        waits for ever at an offset that will not come.
        """
        try:
            topics = self._describe()
        except KafkaException as error:
            # Kafka is away, or a topic not there again yet: the next look tells.
            log.info("the topics cannot be looked at: %s", error)
            return
        if _ids(topics) != self._ids:
            raise Interrupted("the topics were made anew")

    @staticmethod
    def _start(place: Place, checkpoint: Checkpoint) -> TopicPartition:
        offset = OFFSET_BEGINNING if checkpoint.next_offset is None else checkpoint.next_offset
        return TopicPartition(place.topic, place.partition, offset)

    def batches(self) -> Iterator[tuple[list[Message], bool]]:
        """What comes, a batch at a time, for ever; and whether every partition was once read to its end by then.

        The batch may be empty.
        """
        unfinished = set(self._places)
        next_look = time.monotonic() + WATCH_S
        while True:
            if time.monotonic() > next_look:
                self._look()
                next_look = time.monotonic() + WATCH_S
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


def _ids(topics: list[TopicDescription]) -> dict[str, str]:
    return {topic.name: str(topic.topic_id) for topic in topics}


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
