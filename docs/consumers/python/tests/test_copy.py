"""What the copy makes of records: `python -m unittest` in the folder of the README."""

from __future__ import annotations

import json
import tempfile
import unittest
from typing import Any
from unittest import mock

from conversation_copy import run, schemas, views
from conversation_copy.reader import Interrupted
from conversation_copy.run import Copier, Lost
from conversation_copy.schemas import Invalid, Schemas
from conversation_copy.store import Store

ANN, BEN, CLEO = "a", "b", "c"
ROOM = "room"
USERS, CONVERSATIONS = "parlance.users.v1", "parlance.conversations.v1"
AT = "2026-11-26T08:00:00.{:03}Z"
SCHEMA = json.dumps({"type": "object", "required": ["at"], "properties": {"up_to": {"type": "integer"}}})


class Message:
    """What Kafka's client would give."""

    def __init__(self, topic: str, sequence: int, kind: str, data: dict[str, Any]) -> None:
        self._topic, self._sequence, self._kind, self._data = topic, sequence, kind, data

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._sequence + 100

    def value(self) -> bytes:
        return json.dumps(self._data).encode()

    def headers(self) -> list[tuple[str, bytes]]:
        headers = {
            "ce_type": self._kind,
            "ce_sequence": f"{self._sequence:020}",
            "ce_dataschema": f"https://parlance.invalid/schemas/{self._kind}/1.json",
            "ce_later": "a header of a later version",
        }
        return [(name, value.encode()) for name, value in headers.items()]


class Log:
    """Records in the order of their partitions."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._positions = {USERS: 0, CONVERSATIONS: 0}
        self._seq = 0

    def add(self, topic: str, kind: str, **data: Any) -> Message:
        self._positions[topic] += 1
        position = self._positions[topic]
        message = Message(topic, position, kind, {"at": AT.format(position), "later": "a new member", **data})
        self.messages.append(message)
        return message

    def numbered(self, kind: str, **data: Any) -> Message:
        self._seq += 1
        return self.add(CONVERSATIONS, kind, conversation_id=ROOM, seq=self._seq, **data)

    def created(self, history: str = "all") -> Message:
        members = [{"user_id": ANN, "role": "owner"}, {"user_id": BEN, "role": "member"}]
        return self.numbered("conversation.created", type="group", name="us", history=history, members=members, by=ANN)

    def said(self, sender: str, message_id: str) -> Message:
        return self.numbered(
            "message.sent",
            message_id=message_id,
            sender_id=sender,
            type="text",
            content=f"words of {message_id}",
            file_ids=[],
            reply_to=None,
            mentions=[],
            created_at=AT.format(0),
            edited_at=None,
            deleted=False,
        )


class CopyTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.store = Store(f"{folder.name}/copy.sqlite")
        self.addCleanup(self.store.database.close)
        fetching = mock.patch.object(schemas, "fetch", return_value=SCHEMA)
        self.fetch = fetching.start()
        self.addCleanup(fetching.stop)
        self.log = Log()

    def copier(self) -> Copier:
        return Copier(self.store, Schemas(self.store.database, "http://server/"))

    def take(self) -> None:
        self.copier().take(self.log.messages)  # type: ignore[arg-type]

    def seen_by(self, user: str) -> dict[str, Any]:
        return views.of_user(self.store.database, user)[ROOM]

    def messages(self, user: str = ANN) -> list[dict[str, Any]]:
        return list(self.seen_by(user)["messages"])

    def test_what_is_of_a_later_version_moves_the_conversation_and_no_more(self) -> None:
        self.log.created()
        self.log.numbered("message.pinned", message_id="m")
        self.log.add(CONVERSATIONS, "conversation.archived", conversation_id=ROOM)
        self.log.said(BEN, "m")
        self.take()
        seen = self.seen_by(ANN)
        self.assertEqual((seen["conversation"]["last_seq"], seen["messages"][0]["seq"]), (3, 3))
        self.assertEqual(seen["conversation"]["updated_at"], AT.format(4))

    def test_messages_are_edited_deleted_and_reacted_to(self) -> None:
        self.log.created()
        self.log.said(ANN, "m")
        self.log.numbered("message.edited", message_id="m", content="better words", edited_at=AT.format(9), by=ANN)
        for user in (BEN, ANN):
            self.log.numbered("message.reacted", message_id="m", emoji="👍", user_id=user)
        self.log.numbered("message.reacted", message_id="m", emoji="🎉", user_id=BEN)
        self.log.numbered("message.unreacted", message_id="m", emoji="🎉", user_id=BEN)
        self.take()
        (message,) = self.messages()
        self.assertEqual((message["content"], message["edited_at"]), ("better words", AT.format(9)))
        self.assertEqual(message["reactions"], [{"emoji": "👍", "count": 2, "user_ids": [BEN, ANN]}])
        self.log.numbered("message.deleted", message_id="m", by=ANN)
        self.take()
        (message,) = self.messages()
        self.assertEqual((message["deleted"], message["content"], message["reactions"]), (True, None, []))
        self.assertEqual(self.seen_by(BEN)["conversation"]["unread"], 0)

    def test_of_an_erased_user_nothing_is_left_whichever_topic_comes_first(self) -> None:
        self.log.add(USERS, "user.registered", user_id=ANN, username="ann", display_name="Ann", email="ann@example.org")
        self.log.created()
        self.log.said(ANN, "before")
        self.take()
        self.assertEqual(self.seen_by(BEN)["members"][0]["username"], "ann")
        self.log.add(USERS, "user.erased", user_id=ANN)
        self.log.said(ANN, "read after")
        self.take()
        self.assertEqual([message["content"] for message in self.messages(BEN)], [None, None])
        self.assertEqual(self.seen_by(BEN)["members"][0]["username"], None)
        self.assertNotIn("words of", "\n".join(self.store.database.iterdump()))

    def test_everything_read_again_changes_nothing_on_the_way_either(self) -> None:
        self.log.add(USERS, "user.registered", user_id=BEN, username="ben", display_name="B", email="ben@example.org")
        self.log.add(USERS, "user.profile_changed", user_id=BEN, display_name="Ben", avatar_file_id=None)
        self.log.created()
        self.log.said(ANN, "m")
        self.log.add(CONVERSATIONS, "message.read", conversation_id=ROOM, user_id=BEN, up_to=2)
        self.log.numbered("conversation.member_left", user_id=BEN, by=BEN)
        self.log.numbered("conversation.member_joined", user_id=BEN, role="member", by=ANN)
        self.log.said(ANN, "n")
        self.log.add(CONVERSATIONS, "message.delivered", conversation_id=ROOM, user_id=BEN, up_to=5)
        self.take()
        once = views.of_everybody(self.store.database)
        self.assertEqual([message["status"] for message in once[ANN][ROOM]["messages"]], ["read", "delivered"])
        self.assertEqual(once[ANN][ROOM]["receipts"][1], {"user_id": BEN, "delivered_to": 5, "read_to": 4})
        self.store.forget()
        copier = self.copier()
        for message in self.log.messages:
            copier.take([message])  # type: ignore[list-item]
            self.assertEqual(views.of_everybody(self.store.database), once)

    def test_a_repeated_record_is_dropped_by_its_sequence(self) -> None:
        self.log.created()
        said = self.log.said(ANN, "m")
        self.take()
        copier = self.copier()
        self.assertEqual(copier.take([said]), 0)  # type: ignore[list-item]
        self.assertEqual(copier.taken, {"repeated": 1})

    def test_a_gap_has_the_partition_read_again_and_is_a_loss_in_the_end(self) -> None:
        self.log.created()
        missing = self.log.said(ANN, "m")
        after = self.log.said(ANN, "n")
        self.log.messages.remove(missing)
        copier = self.copier()
        with self.assertRaises(Interrupted):
            copier.take(self.log.messages)  # type: ignore[arg-type]
        self.assertEqual(self.seen_by(ANN)["conversation"]["last_seq"], 1)
        (checkpoint,) = copier._checkpoints.values()
        self.assertEqual((checkpoint.sequence, checkpoint.next_offset), (1, None))
        with mock.patch.object(run, "PATIENCE_S", -1), self.assertRaises(Lost):
            copier.take([after])  # type: ignore[list-item]
        self.assertEqual(copier.take([missing, after]), 2)  # type: ignore[list-item]

    def test_what_breaks_its_schema_is_not_taken_nor_the_batch_it_is_in(self) -> None:
        self.log.created()
        self.log.add(CONVERSATIONS, "message.read", conversation_id=ROOM, user_id=BEN, up_to="a secret")
        with self.assertRaises(Invalid) as refusal:
            self.take()
        self.assertNotIn("a secret", str(refusal.exception))
        self.assertEqual(views.of_everybody(self.store.database), {})
        self.assertEqual(self.store.checkpoints(), {})

    def test_a_schema_is_fetched_from_our_server_once(self) -> None:
        self.log.created()
        self.take()
        self.log.numbered("conversation.created")
        self.log.messages.pop()
        self.take()
        self.fetch.assert_called_once_with("http://server/schemas/conversation.created/1.json")

    def test_who_joins_where_history_is_hidden_sees_what_comes_from_then_on(self) -> None:
        self.log.created("since_join")
        self.log.said(ANN, "m")
        self.log.numbered("conversation.member_joined", user_id=CLEO, role="member", by=ANN)
        self.take()
        seen = self.seen_by(CLEO)
        self.assertEqual((seen["messages"], seen["conversation"]["last_message"]), ([], None))
        self.assertEqual((seen["conversation"]["delivered_to"], seen["conversation"]["unread"]), (3, 0))
        # Whom it did not reach says nothing of it.
        self.assertEqual(self.messages(ANN)[0]["status"], "sent")


if __name__ == "__main__":
    unittest.main()
