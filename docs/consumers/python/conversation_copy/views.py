"""The copy as the query API shows it, to each member what that member may see."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

View = dict[str, Any]
SENT, DELIVERED, READ = range(3)
STATUS = ("sent", "delivered", "read")


def of_user(database: sqlite3.Connection, user_id: str) -> dict[str, View]:
    """All conversations that a user is in, by id: the conversation, its members, messages, receipts."""
    rows = database.execute(
        "SELECT conversation_id FROM stays WHERE user_id = ? AND left_seq IS NULL ORDER BY conversation_id", (user_id,)
    )
    return {row["conversation_id"]: Conversation(database, row["conversation_id"]).seen_by(user_id) for row in rows}


def of_everybody(database: sqlite3.Connection) -> dict[str, dict[str, View]]:
    """The same for every user who is in any."""
    rows = database.execute("SELECT DISTINCT user_id FROM stays WHERE left_seq IS NULL ORDER BY user_id").fetchall()
    return {row["user_id"]: of_user(database, row["user_id"]) for row in rows}


@dataclass(frozen=True)
class Stay:
    """One's time in a conversation."""

    user_id: str
    joined_seq: int
    left_seq: int | None
    role: str
    joined_at: str
    delivered_to: int
    read_to: int
    username: str | None
    display_name: str | None
    erased: bool

    def status_of(self, seq: int) -> int:
        """How far a message has got with them."""
        if self.read_to >= seq:
            return READ
        return DELIVERED if self.delivered_to >= seq else SENT


class Conversation:
    """A conversation, to be looked at by its members."""

    def __init__(self, database: sqlite3.Connection, conversation_id: str) -> None:
        self._database = database
        self._row = database.execute(
            "SELECT * FROM conversations WHERE conversation_id = ?", (conversation_id,)
        ).fetchone()
        stays = [
            Stay(**{**dict(row), "erased": bool(row["erased"])})
            for row in database.execute(
                "SELECT user_id, joined_seq, left_seq, role, joined_at, delivered_to, read_to, username, display_name, "
                "coalesce(erased, 0) AS erased FROM stays LEFT JOIN users USING (user_id) WHERE conversation_id = ?",
                (conversation_id,),
            )
        ]
        self._present = sorted((stay for stay in stays if stay.left_seq is None), key=lambda stay: stay.user_id)
        self._ended = [stay for stay in stays if stay.left_seq is not None]

    def seen_by(self, user_id: str) -> View:
        """What a member may see of it."""
        own = next(stay for stay in self._present if stay.user_id == user_id)
        horizon = 0 if self._row["history"] == "all" else own.joined_seq
        messages = self._messages(horizon)
        unread = (
            message
            for message in messages
            if message["seq"] > own.read_to and message["sender_id"] != user_id and not message["deleted"]
        )
        conversation = {
            "conversation_id": self._row["conversation_id"],
            "type": self._row["type"],
            "name": self._row["name"],
            "role": own.role,
            "member_count": len(self._present),
            "last_message": messages[-1] if messages else None,
            "last_seq": self._row["last_seq"],
            "unread": sum(1 for _ in unread),
            "delivered_to": own.delivered_to,
            "read_to": own.read_to,
            "updated_at": self._row["updated_at"],
        }
        members = [
            {
                "user_id": stay.user_id,
                "username": stay.username,
                "display_name": stay.display_name,
                "role": stay.role,
                "joined_at": stay.joined_at,
            }
            for stay in self._present
        ]
        receipts = [
            {"user_id": stay.user_id, "delivered_to": stay.delivered_to, "read_to": stay.read_to}
            for stay in self._present
        ]
        return {"conversation": conversation, "members": members, "messages": messages, "receipts": receipts}

    def _messages(self, horizon: int) -> list[View]:
        reactions = self._reactions()
        rows = self._database.execute(
            "SELECT * FROM messages WHERE conversation_id = ? AND seq > ? ORDER BY seq",
            (self._row["conversation_id"], horizon),
        )
        return [
            {
                "message_id": row["message_id"],
                "conversation_id": row["conversation_id"],
                "seq": row["seq"],
                "sender_id": row["sender_id"],
                "type": row["type"],
                "content": row["content"],
                "file_ids": json.loads(row["file_ids"]),
                "reply_to": row["reply_to"],
                "mentions": json.loads(row["mentions"]),
                "created_at": row["created_at"],
                "edited_at": row["edited_at"],
                "deleted": bool(row["deleted"]),
                "reactions": [
                    {"emoji": emoji, "count": len(user_ids), "user_ids": user_ids}
                    for emoji, user_ids in reactions.get(row["message_id"], {}).items()
                ],
                "status": "failed" if row["failed"] else STATUS[self._status(row["seq"], row["sender_id"])],
            }
            for row in rows
        ]

    def _reactions(self) -> dict[str, dict[str, list[str]]]:
        """Who reacted with what, by message and emoji, in the order in which they did."""
        reactions: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        rows = self._database.execute(
            "SELECT message_id, emoji, user_id FROM reactions JOIN messages USING (message_id) "
            "WHERE conversation_id = ? ORDER BY reactions.seq",
            (self._row["conversation_id"],),
        )
        for row in rows:
            reactions[row["message_id"]][row["emoji"]].append(row["user_id"])
        return reactions

    def _status(self, seq: int, sender_id: str) -> int:
        """How far a message has got with all who were members when it was sent and still are, without its sender.

        With nobody of them left it stays where it was with the last.
        """
        there = [stay for stay in self._present if stay.user_id != sender_id and stay.joined_seq <= seq]
        counting = [stay.status_of(seq) for stay in there if not stay.erased]
        if counting:
            return min(counting)
        if there:
            return max(stay.status_of(seq) for stay in there)
        gone = [
            stay for stay in self._ended if stay.user_id != sender_id and stay.joined_seq <= seq < (stay.left_seq or 0)
        ]
        return max(gone, key=lambda stay: stay.left_seq or 0).status_of(seq) if gone else SENT
