"""The file that holds the copy, and how far it goes: one SQLite database, so that both move in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .records import Place, Record

TABLES = """
CREATE TABLE IF NOT EXISTS checkpoints (
    topic       TEXT    NOT NULL,
    partition   INTEGER NOT NULL,
    sequence    INTEGER NOT NULL,  -- of the last record that is in the copy
    next_offset INTEGER,           -- where to read on in the topic of this id; none for the beginning
    PRIMARY KEY (topic, partition)
);
-- Which topics the offsets are of: made anew under the same name, a topic has another id.
CREATE TABLE IF NOT EXISTS topics (topic TEXT PRIMARY KEY, id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS schemas (path TEXT PRIMARY KEY, schema TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS users (
    user_id      TEXT PRIMARY KEY,
    username     TEXT,
    display_name TEXT,
    erased       INTEGER NOT NULL,
    sequence     INTEGER NOT NULL  -- of the last event of theirs
);
CREATE TABLE IF NOT EXISTS conversations (
    conversation_id TEXT PRIMARY KEY,
    type            TEXT NOT NULL,
    name            TEXT,
    history         TEXT NOT NULL,
    last_seq        INTEGER NOT NULL,
    updated_at      TEXT NOT NULL
);
-- One row a stay: who left has one still, since it says how far a message had got with them.
CREATE TABLE IF NOT EXISTS stays (
    conversation_id TEXT NOT NULL,
    user_id         TEXT NOT NULL,
    joined_seq      INTEGER NOT NULL,  -- 0 for those it was created with
    left_seq        INTEGER,
    role            TEXT NOT NULL,
    joined_at       TEXT NOT NULL,
    delivered_to    INTEGER NOT NULL,
    read_to         INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, user_id, joined_seq)
);
CREATE INDEX IF NOT EXISTS stays_user ON stays (user_id) WHERE left_seq IS NULL;
CREATE TABLE IF NOT EXISTS messages (
    message_id      TEXT PRIMARY KEY,
    conversation_id TEXT NOT NULL,
    seq             INTEGER NOT NULL,
    sender_id       TEXT NOT NULL,
    type            TEXT NOT NULL,
    content         TEXT,
    file_ids        TEXT NOT NULL,  -- JSON
    reply_to        TEXT,
    mentions        TEXT NOT NULL,  -- JSON
    created_at      TEXT NOT NULL,
    edited_at       TEXT,
    deleted         INTEGER NOT NULL,
    failed          INTEGER NOT NULL,
    UNIQUE (conversation_id, seq)
);
CREATE INDEX IF NOT EXISTS messages_sender ON messages (sender_id);
CREATE TABLE IF NOT EXISTS reactions (
    message_id TEXT NOT NULL,
    emoji      TEXT NOT NULL,
    user_id    TEXT NOT NULL,
    seq        INTEGER NOT NULL,
    PRIMARY KEY (message_id, emoji, user_id)
);
"""


@dataclass(frozen=True)
class Checkpoint:
    """How far the copy goes in a partition."""

    sequence: int = 0
    next_offset: int | None = None
    """`None` for the partition's beginning."""


class Store:
    """The copy's database."""

    def __init__(self, path: str) -> None:
        self.database = sqlite3.connect(path, isolation_level=None, timeout=30)
        self.database.row_factory = sqlite3.Row
        self.database.execute("PRAGMA journal_mode = WAL")
        # A power cut may take the last transactions: whole ones, state and checkpoint alike, so they are read again.
        self.database.execute("PRAGMA synchronous = NORMAL")
        # What is deleted or erased shall not linger in free pages.
        self.database.execute("PRAGMA secure_delete = ON")
        self.database.executescript(TABLES)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that happens within, or nothing of it."""
        self.database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.database.execute("ROLLBACK")
            raise
        self.database.execute("COMMIT")

    def checkpoints(self) -> dict[Place, Checkpoint]:
        """How far the copy goes, by partition."""
        rows = self.database.execute("SELECT topic, partition, sequence, next_offset FROM checkpoints")
        return {Place(topic, partition): Checkpoint(sequence, offset) for topic, partition, sequence, offset in rows}

    def adopt(self, topics: dict[str, str]) -> dict[Place, Checkpoint]:
        """Where to go on in the topics of these ids: at the beginning of those that were made anew."""
        known = dict(self.database.execute("SELECT topic, id FROM topics"))
        with self.transaction():
            for topic, topic_id in topics.items():
                if known.get(topic) != topic_id:
                    self.database.execute("UPDATE checkpoints SET next_offset = NULL WHERE topic = ?", (topic,))
                    self.database.execute("INSERT OR REPLACE INTO topics (topic, id) VALUES (?, ?)", (topic, topic_id))
        return self.checkpoints()

    def checkpoint(self, record: Record, sequence: int) -> None:
        """Notes, in the transaction of what it changed, that a record was read."""
        self.database.execute(
            "INSERT INTO checkpoints (topic, partition, sequence, next_offset) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET sequence = excluded.sequence, next_offset = excluded.next_offset",
            (*record.place, sequence, record.offset + 1),
        )

    def forget(self) -> None:
        """Has every topic read again from its beginning, over the copy that is there."""
        self.database.execute("DELETE FROM checkpoints")
