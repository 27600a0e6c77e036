"""Keeps the copy: every record once, in the order of its partition, or not at all."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import Counter
from contextlib import closing

from confluent_kafka import Message

from .apply import apply, is_known
from .reader import Interrupted, Patience, Reader
from .records import Place, Record
from .schemas import Schemas
from .store import Checkpoint, Store

PATIENCE_S = 120.0
"""A topic that was wiped is whole again within a minute: what is missing for longer, while others come, is lost."""
PAUSE_S = 1.0

log = logging.getLogger(__name__)


class Lost(Exception):
    """A record is missing, however often its partition is read."""


class Copier:
    """Takes records into a store."""

    def __init__(self, store: Store, schemas: Schemas) -> None:
        self._store = store
        self._schemas = schemas
        self._checkpoints = store.checkpoints()
        self._missing_since: dict[Place, float] = {}
        self.taken: Counter[str] = Counter()
        """How many records there were, by what became of them."""

    def run(self, brokers: str, once: bool) -> None:
        """Reads until a signal says that it is enough, or, with `once`, until the end that the topics have now."""
        stopping = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopping.set())
        patience = Patience(PATIENCE_S, PAUSE_S)
        while not stopping.is_set():
            try:
                with closing(Reader(brokers, self._adopt)) as reader:
                    for messages, at_end in reader.batches():
                        if self.take(messages):
                            patience.progress()
                        if stopping.is_set() or (once and at_end):
                            return
            except Interrupted as interruption:
                log.warning("reading begins anew: %s", interruption)
                if not patience.pause():
                    raise

    def _adopt(self, topics: dict[str, str]) -> dict[Place, Checkpoint]:
        """Where to go on in the topics of these ids; a partition that is to be read again stays so."""
        for place, stored in self._store.adopt(topics).items():
            if place not in self._checkpoints or stored.next_offset is None:
                self._checkpoints[place] = stored
        return self._checkpoints

    def take(self, messages: list[Message]) -> int:
        """Takes a batch in one transaction, state and checkpoints together. Says how many records were new.

        A record that is missing interrupts: what came before it counts, and its partition is read from its beginning.
        """
        before = dict(self._checkpoints)
        new = 0
        gap: str | None = None
        try:
            with self._store.transaction():
                for record in map(Record.of, messages):
                    last = self._checkpoints.get(record.place, Checkpoint()).sequence
                    if record.sequence > last + 1:
                        gap = f"{record} comes after {last}"
                        self._begin_again(record.place, last, gap)
                        break
                    if record.sequence == last + 1:
                        self._take(record)
                        new += 1
                    else:
                        self.taken["repeated"] += 1
                    self._note(record, max(record.sequence, last))
        except BaseException:
            self._checkpoints = before
            raise
        if gap is not None:
            raise Interrupted(gap)
        return new

    def _begin_again(self, place: Place, last: int, gap: str) -> None:
        """Has a partition read from its beginning, where what is missing may be again."""
        since = self._missing_since.setdefault(place, time.monotonic())
        if time.monotonic() - since > PATIENCE_S:
            raise Lost(gap)
        self._checkpoints[place] = Checkpoint(last)

    def _take(self, record: Record) -> None:
        data = record.data()
        if is_known(record):
            self._schemas.check(record, data)
        apply(self._store.database, record, data)
        self._missing_since.pop(record.place, None)
        self.taken["new" if is_known(record) else "of other types"] += 1

    def _note(self, record: Record, sequence: int) -> None:
        self._checkpoints[record.place] = Checkpoint(sequence, record.offset + 1)
        self._store.checkpoint(record, sequence)
