//! A message: sent once, under the id that its client chose.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::conversation::{Conversation, ConversationRefusal};
use crate::kernel::{aggregate, events, from_bodies};

events! {
    /// An event of a message. The message's id is the aggregate's, the ordering key its conversation.
    pub enum MessageEvent {
        /// It was said; numbered.
        "message.sent", 1 => Sent(Sent),
    }
}

from_bodies!(MessageEvent: Sent);

/// What was said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Who said it.
    pub sender_id: Uuid,
    /// What kind of content it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// UTF-8, kept byte for byte.
    pub content: String,
    /// The message that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Uuid>,
    /// The members that it names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<Uuid>,
}

/// The state that decisions about a message need.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    sent: Option<Sent>,
}

/// What can be asked of a message.
#[derive(Clone, Debug)]
pub enum MessageCommand {
    /// Say it.
    Send {
        /// What is said.
        message: Sent,
        /// The conversation that it is said in.
        conversation: Box<Conversation>,
        /// Whether `reply_to` is a message of that conversation.
        reply_known: bool,
    },
}

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageRefusal {
    /// The id is in use for something else.
    #[error("this message id is in use")]
    Exists,
    /// The sender has no say in the conversation.
    #[error(transparent)]
    Conversation(#[from] ConversationRefusal),
    /// The one at this index in `mentions` is not a member.
    #[error("not a member of the conversation")]
    Mention(usize),
    /// `reply_to` is not a message of this conversation.
    #[error("not a message of this conversation")]
    Reply,
}

impl Message {
    /// What was said, once it was.
    pub fn sent(&self) -> Option<&Sent> {
        self.sent.as_ref()
    }

    /// Decides `command`; no event means that the same was said already.
    pub fn decide(&self, command: MessageCommand) -> Result<Vec<MessageEvent>, MessageRefusal> {
        let MessageCommand::Send { message, conversation, reply_known } = command;
        self.send(message, &conversation, reply_known)
    }

    /// Decides a send by reference to the conversation, which may have 10,000 members.
    ///
    /// A known id is answered to its sender before anything else is looked at.
    pub fn send(
        &self,
        message: Sent,
        conversation: &Conversation,
        reply_known: bool,
    ) -> Result<Vec<MessageEvent>, MessageRefusal> {
        match &self.sent {
            Some(sent) if *sent == message => return Ok(vec![]),
            Some(_) => return Err(MessageRefusal::Exists),
            None => {}
        }
        conversation.member(message.sender_id)?;
        if let Some(index) = message.mentions.iter().position(|id| !conversation.members().contains_key(id)) {
            return Err(MessageRefusal::Mention(index));
        }
        if message.reply_to.is_some() && !reply_known {
            return Err(MessageRefusal::Reply);
        }
        Ok(vec![message.into()])
    }

    fn evolve(&mut self, event: MessageEvent) {
        let MessageEvent::Sent(sent) = event;
        self.sent = Some(sent);
    }
}

aggregate!(Message {
    name: "message",
    code: 4,
    topic: Conversations,
    latest_only: false,
    command: MessageCommand,
    event: MessageEvent,
    refusal: MessageRefusal,
});

#[cfg(test)]
mod tests {
    use cqrs_es::Aggregate;
    use cqrs_es::test::TestFramework;

    use super::*;
    use crate::conversation::{Created, History, Kind, MemberLeft, Role};
    use crate::kernel::Payload;

    const ANN: Uuid = Uuid::from_u128(1);
    const BEN: Uuid = Uuid::from_u128(2);
    const EVE: Uuid = Uuid::from_u128(3);

    fn direct() -> Conversation {
        let mut conversation = Conversation::default();
        conversation.apply(
            Created {
                kind: Kind::Direct,
                name: None,
                history: History::All,
                members: vec![(ANN, Role::Owner), (BEN, Role::Member)],
                by: ANN,
            }
            .into(),
        );
        conversation
    }

    fn said(content: &str) -> Sent {
        Sent { sender_id: ANN, kind: "text".into(), content: content.into(), reply_to: None, mentions: vec![] }
    }

    fn send(message: Sent, conversation: Conversation) -> MessageCommand {
        MessageCommand::Send { message, conversation: Box::new(conversation), reply_known: false }
    }

    #[test]
    fn a_member_sends() {
        TestFramework::<Message>::with(())
            .given_no_previous_events()
            .when(send(said("hi"), direct()))
            .then_expect_events(vec![said("hi").into()]);
    }

    #[test]
    fn the_same_again_makes_no_event_and_anything_else_is_refused() {
        let given = || TestFramework::<Message>::with(()).given(vec![said("hi").into()]);
        given().when(send(said("hi"), direct())).then_expect_events(vec![]);
        given().when(send(said("ho"), direct())).then_expect_error(MessageRefusal::Exists);
    }

    #[test]
    fn a_known_id_is_answered_to_one_who_has_left_since() {
        let mut left = direct();
        left.apply(MemberLeft { user_id: ANN, by: ANN }.into());
        TestFramework::<Message>::with(())
            .given(vec![said("hi").into()])
            .when(send(said("hi"), left.clone()))
            .then_expect_events(vec![]);
        TestFramework::<Message>::with(())
            .given_no_previous_events()
            .when(send(said("hi"), left))
            .then_expect_error(MessageRefusal::Conversation(ConversationRefusal::FormerMember));
    }

    #[test]
    fn strangers_are_not_mentioned_and_unknown_messages_not_answered() {
        let none = || TestFramework::<Message>::with(()).given_no_previous_events();
        let mention = Sent { mentions: vec![BEN, EVE], ..said("hi") };
        none().when(send(mention, direct())).then_expect_error(MessageRefusal::Mention(1));
        let reply = Sent { reply_to: Some(EVE), ..said("hi") };
        none().when(send(reply, direct())).then_expect_error(MessageRefusal::Reply);
    }

    #[test]
    fn what_is_absent_takes_no_room_and_comes_back() {
        let event: MessageEvent = said("Grüße 👋").into();
        let json = event.encode().unwrap();
        assert_eq!(json, r#"{"sender_id":"00000000-0000-0000-0000-000000000001","type":"text","content":"Grüße 👋"}"#);
        assert_eq!(MessageEvent::decode("message.sent", &json).unwrap(), event);
    }
}
