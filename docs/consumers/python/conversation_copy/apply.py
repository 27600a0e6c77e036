"""What each type of event does to the copy. An event that is there already changes nothing, whoever brings it again."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable

from .records import Data, Record


class Incomplete(Exception):
    """An event follows one that the copy has not got."""


def apply(database: sqlite3.Connection, record: Record, data: Data) -> None:
    """Changes the copy as an event says."""
    if record.type in USERS:
        _apply_to_user(database, record, data)
    elif record.type in RECEIPTS:
        RECEIPTS[record.type](database, data)
    elif "seq" in data:
        _apply_numbered(database, record, data)


def is_known(record: Record) -> bool:
    """Whether the copy reads this type of event. Of others it takes the number, if they have one, and no more."""
    return record.type in USERS or record.type in RECEIPTS or record.type in NUMBERED


# Users. Their topic is their own: it may be read before or after what they said, so nothing waits for it.


def _apply_to_user(database: sqlite3.Connection, record: Record, data: Data) -> None:
    user_id = data["user_id"]
    database.execute("INSERT INTO users VALUES (?, NULL, NULL, 0, 0) ON CONFLICT DO NOTHING", (user_id,))
    row = database.execute("SELECT sequence FROM users WHERE user_id = ?", (user_id,)).fetchone()
    if record.sequence > row["sequence"]:
        USERS[record.type](database, data)
        database.execute("UPDATE users SET sequence = ? WHERE user_id = ?", (record.sequence, user_id))


def _registered(database: sqlite3.Connection, data: Data) -> None:
    database.execute(
        "UPDATE users SET username = ?, display_name = ? WHERE user_id = ?",
        (data["username"], data["display_name"], data["user_id"]),
    )


def _profile_changed(database: sqlite3.Connection, data: Data) -> None:
    database.execute("UPDATE users SET display_name = ? WHERE user_id = ?", (data["display_name"], data["user_id"]))


def _erased(database: sqlite3.Connection, data: Data) -> None:
    """No message is deleted by an event of its own: everything of theirs is, what comes later too."""
    database.execute(
        "UPDATE users SET username = NULL, display_name = NULL, erased = 1 WHERE user_id = ?", (data["user_id"],)
    )
    for row in database.execute("SELECT message_id FROM messages WHERE sender_id = ?", (data["user_id"],)).fetchall():
        _delete(database, row["message_id"])


# Conversations. Their numbered events count from 1 without a gap, in the order of the partition.


def _apply_numbered(database: sqlite3.Connection, record: Record, data: Data) -> None:
    conversation_id, seq = data["conversation_id"], data["seq"]
    row = database.execute(
        "SELECT last_seq FROM conversations WHERE conversation_id = ?", (conversation_id,)
    ).fetchone()
    last_seq = row["last_seq"] if row else 0
    if seq <= last_seq:
        return
    if seq != last_seq + 1:
        raise Incomplete(f"{record}: number {seq} of {conversation_id} after {last_seq}")
    if record.type in NUMBERED:
        NUMBERED[record.type](database, data)
    # What a later version says beyond this moves the conversation all the same.
    database.execute(
        "UPDATE conversations SET last_seq = ?, updated_at = ? WHERE conversation_id = ?",
        (seq, data["at"], conversation_id),
    )


def _created(database: sqlite3.Connection, data: Data) -> None:
    database.execute(
        "INSERT INTO conversations VALUES (?, ?, ?, ?, 0, ?)",
        (data["conversation_id"], data["type"], data["name"], data["history"], data["at"]),
    )
    for member in data["members"]:
        _begin_stay(database, data, member["user_id"], member["role"], joined_seq=0)


def _renamed(database: sqlite3.Connection, data: Data) -> None:
    database.execute(
        "UPDATE conversations SET name = ? WHERE conversation_id = ?", (data["name"], data["conversation_id"])
    )


def _settings_changed(database: sqlite3.Connection, data: Data) -> None:
    database.execute(
        "UPDATE conversations SET history = ? WHERE conversation_id = ?", (data["history"], data["conversation_id"])
    )


def _member_joined(database: sqlite3.Connection, data: Data) -> None:
    _begin_stay(database, data, data["user_id"], data["role"], joined_seq=data["seq"])


def _member_left(database: sqlite3.Connection, data: Data) -> None:
    database.execute(
        "UPDATE stays SET left_seq = ? WHERE conversation_id = ? AND user_id = ? AND left_seq IS NULL",
        (data["seq"], data["conversation_id"], data["user_id"]),
    )


def _member_role_changed(database: sqlite3.Connection, data: Data) -> None:
    database.execute(
        "UPDATE stays SET role = ? WHERE conversation_id = ? AND user_id = ? AND left_seq IS NULL",
        (data["role"], data["conversation_id"], data["user_id"]),
    )


def _begin_stay(database: sqlite3.Connection, data: Data, user_id: str, role: str, joined_seq: int) -> None:
    """Both watermarks begin where the stay does: what was said before is nothing that one has yet to get."""
    database.execute(
        "INSERT INTO stays VALUES (?, ?, ?, NULL, ?, ?, ?, ?)",
        (data["conversation_id"], user_id, joined_seq, role, data["at"], joined_seq, joined_seq),
    )


# Messages.


def _sent(database: sqlite3.Connection, data: Data) -> None:
    database.execute(
        "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
        (
            data["message_id"],
            data["conversation_id"],
            data["seq"],
            data["sender_id"],
            data["type"],
            data["content"],
            json.dumps(data["file_ids"]),
            data["reply_to"],
            json.dumps(data["mentions"]),
            data["created_at"],
            data["edited_at"],
            data["deleted"],
        ),
    )
    sender = database.execute("SELECT erased FROM users WHERE user_id = ?", (data["sender_id"],)).fetchone()
    if sender is not None and sender["erased"]:
        _delete(database, data["message_id"])


def _edited(database: sqlite3.Connection, data: Data) -> None:
    """The content is null where the message was deleted or erased before this was published again."""
    database.execute(
        "UPDATE messages SET content = ?, edited_at = ? WHERE message_id = ? AND NOT deleted",
        (data["content"], data["edited_at"], data["message_id"]),
    )


def _deleted(database: sqlite3.Connection, data: Data) -> None:
    _delete(database, data["message_id"])


def _delete(database: sqlite3.Connection, message_id: str) -> None:
    database.execute("UPDATE messages SET deleted = 1, content = NULL WHERE message_id = ?", (message_id,))
    database.execute("DELETE FROM reactions WHERE message_id = ?", (message_id,))


def _reacted(database: sqlite3.Connection, data: Data) -> None:
    database.execute(
        "INSERT INTO reactions SELECT message_id, ?, ?, ? FROM messages WHERE message_id = ? AND NOT deleted "
        "ON CONFLICT DO NOTHING",
        (data["emoji"], data["user_id"], data["seq"], data["message_id"]),
    )


def _unreacted(database: sqlite3.Connection, data: Data) -> None:
    database.execute(
        "DELETE FROM reactions WHERE message_id = ? AND emoji = ? AND user_id = ?",
        (data["message_id"], data["emoji"], data["user_id"]),
    )


# Receipts: watermarks only rise, and go with the stay; one that is read again after a later stay began is below it.


def _delivered(database: sqlite3.Connection, data: Data) -> None:
    database.execute(
        "UPDATE stays SET delivered_to = max(delivered_to, ?) "
        "WHERE conversation_id = ? AND user_id = ? AND left_seq IS NULL",
        (data["up_to"], data["conversation_id"], data["user_id"]),
    )


def _read(database: sqlite3.Connection, data: Data) -> None:
    """What was read was delivered, without a record of that."""
    _delivered(database, data)
    database.execute(
        "UPDATE stays SET read_to = max(read_to, ?) WHERE conversation_id = ? AND user_id = ? AND left_seq IS NULL",
        (data["up_to"], data["conversation_id"], data["user_id"]),
    )


def _failed(database: sqlite3.Connection, data: Data) -> None:
    database.execute("UPDATE messages SET failed = 1 WHERE message_id = ?", (data["message_id"],))


Handler = Callable[[sqlite3.Connection, Data], None]

USERS: dict[str, Handler] = {
    "user.registered": _registered,
    "user.profile_changed": _profile_changed,
    "user.erased": _erased,
}
NUMBERED: dict[str, Handler] = {
    "conversation.created": _created,
    "conversation.renamed": _renamed,
    "conversation.settings_changed": _settings_changed,
    "conversation.member_joined": _member_joined,
    "conversation.member_left": _member_left,
    "conversation.member_role_changed": _member_role_changed,
    "message.sent": _sent,
    "message.edited": _edited,
    "message.deleted": _deleted,
    "message.reacted": _reacted,
    "message.unreacted": _unreacted,
}
RECEIPTS: dict[str, Handler] = {
    "message.delivered": _delivered,
    "message.read": _read,
    "message.failed": _failed,
}
