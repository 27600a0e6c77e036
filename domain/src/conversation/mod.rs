//! A conversation: its members and their roles, its name and settings.

mod command;
mod event;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use command::{ConversationCommand, ConversationRefusal, MAX_MEMBERS};
pub use event::{
    ConversationEvent, Created, History, Kind, MemberJoined, MemberLeft, MemberRoleChanged, Renamed, Role,
    SettingsChanged,
};

use crate::kernel::aggregate;

/// The state that decisions about a conversation need.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    /// As it was opened, to know the same request again.
    created: Option<Created>,
    name: Option<String>,
    history: History,
    members: BTreeMap<Uuid, Member>,
    former: BTreeSet<Uuid>,
}

/// One who is in a conversation now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// What they may do.
    pub role: Role,
    /// Number of the own `member_joined`; 0 for those it was opened with.
    pub joined_seq: u64,
}

impl Conversation {
    /// Whether it was opened.
    pub fn exists(&self) -> bool {
        self.created.is_some()
    }

    /// The members now.
    pub fn members(&self) -> &BTreeMap<Uuid, Member> {
        &self.members
    }

    /// The membership of `user_id`, or why they have no say here.
    pub fn member(&self, user_id: Uuid) -> Result<Member, ConversationRefusal> {
        match self.members.get(&user_id) {
            Some(member) => Ok(*member),
            None if self.former.contains(&user_id) => Err(ConversationRefusal::FormerMember),
            None => Err(ConversationRefusal::Unknown),
        }
    }

    /// Decides `command`; no event means that all is so already.
    pub fn decide(&self, command: ConversationCommand) -> Result<Vec<ConversationEvent>, ConversationRefusal> {
        match command {
            ConversationCommand::Create(created) => self.create(created),
            ConversationCommand::Change { by, name, history } => self.change(by, name, history),
            ConversationCommand::SetMember { by, user_id, role, next_seq } => {
                self.set_member(by, user_id, role, next_seq)
            }
            ConversationCommand::RemoveMember { by, user_id } => self.remove_member(by, user_id),
        }
    }

    fn create(&self, wanted: Created) -> Result<Vec<ConversationEvent>, ConversationRefusal> {
        match &self.created {
            None if wanted.members.len() > MAX_MEMBERS => Err(ConversationRefusal::Full),
            None => Ok(vec![wanted.into()]),
            Some(made) if same_request(made, &wanted) => Ok(vec![]),
            Some(_) => Err(ConversationRefusal::Exists),
        }
    }

    fn change(
        &self,
        by: Uuid,
        name: Option<String>,
        history: Option<History>,
    ) -> Result<Vec<ConversationEvent>, ConversationRefusal> {
        let caller = self.member(by)?;
        if name.is_some() && self.is_direct() {
            return Err(ConversationRefusal::Direct);
        }
        if caller.role < Role::Admin {
            return Err(ConversationRefusal::Role);
        }
        let renamed = name.filter(|name| self.name.as_ref() != Some(name)).map(|name| Renamed { name, by }.into());
        let changed =
            history.filter(|history| self.history != *history).map(|history| SettingsChanged { history, by }.into());
        Ok(renamed.into_iter().chain(changed).collect())
    }

    fn set_member(
        &self,
        by: Uuid,
        user_id: Uuid,
        role: Role,
        next_seq: u64,
    ) -> Result<Vec<ConversationEvent>, ConversationRefusal> {
        let caller = self.member(by)?;
        if self.is_direct() {
            return Err(ConversationRefusal::Direct);
        }
        let present = self.members.get(&user_id).map(|member| member.role);
        if by == user_id && present == Some(role) {
            return Ok(vec![]);
        }
        let allowed = match caller.role {
            Role::Owner => true,
            Role::Admin => role <= Role::Admin && present != Some(Role::Owner),
            // Stepping down is all that a member could do, and there is nothing below.
            Role::Member => false,
        };
        if !allowed {
            return Err(ConversationRefusal::Role);
        }
        match present {
            Some(present) if present == role => Ok(vec![]),
            Some(Role::Owner) if self.is_last_owner(user_id) => Err(ConversationRefusal::LastOwner),
            Some(_) => Ok(vec![MemberRoleChanged { user_id, role, by }.into()]),
            None if self.members.len() >= MAX_MEMBERS => Err(ConversationRefusal::Full),
            None => Ok(vec![MemberJoined { user_id, role, by, joined_seq: next_seq }.into()]),
        }
    }

    fn remove_member(&self, by: Uuid, user_id: Uuid) -> Result<Vec<ConversationEvent>, ConversationRefusal> {
        // Leaving again is leaving: the answer to the first time may have been lost.
        if by == user_id && self.former.contains(&by) {
            return Ok(vec![]);
        }
        let caller = self.member(by)?;
        if self.is_direct() {
            return Err(ConversationRefusal::Direct);
        }
        let present = self.members.get(&user_id).map(|member| member.role);
        if by != user_id {
            let touches_owner = present == Some(Role::Owner) && caller.role < Role::Owner;
            if caller.role < Role::Admin || touches_owner {
                return Err(ConversationRefusal::Role);
            }
        } else if self.is_last_owner(user_id) && self.members.len() > 1 {
            return Err(ConversationRefusal::LastOwner);
        }
        Ok(present.map(|_| MemberLeft { user_id, by }.into()).into_iter().collect())
    }

    fn is_direct(&self) -> bool {
        self.created.as_ref().is_some_and(|created| created.kind == Kind::Direct)
    }

    fn is_last_owner(&self, user_id: Uuid) -> bool {
        let mut owners = self.members.iter().filter(|(_, member)| member.role == Role::Owner);
        owners.next().is_some_and(|(id, _)| *id == user_id) && owners.next().is_none()
    }

    fn evolve(&mut self, event: ConversationEvent) {
        match event {
            ConversationEvent::Created(created) => {
                self.name.clone_from(&created.name);
                self.history = created.history;
                self.members = created.members.iter().map(|&(id, role)| (id, Member { role, joined_seq: 0 })).collect();
                self.created = Some(created);
            }
            ConversationEvent::Renamed(renamed) => self.name = Some(renamed.name),
            ConversationEvent::SettingsChanged(settings) => self.history = settings.history,
            ConversationEvent::MemberJoined(joined) => {
                self.former.remove(&joined.user_id);
                self.members.insert(joined.user_id, Member { role: joined.role, joined_seq: joined.joined_seq });
            }
            ConversationEvent::MemberLeft(left) => {
                self.members.remove(&left.user_id);
                self.former.insert(left.user_id);
            }
            ConversationEvent::MemberRoleChanged(changed) => {
                if let Some(member) = self.members.get_mut(&changed.user_id) {
                    member.role = changed.role;
                }
            }
        }
    }
}

/// Whether two requests to open a conversation ask for the same; the order of the members does not count.
fn same_request(made: &Created, wanted: &Created) -> bool {
    let members = |created: &Created| created.members.iter().map(|(id, _)| *id).collect::<BTreeSet<_>>();
    made.kind == wanted.kind
        && made.name == wanted.name
        && made.history == wanted.history
        && made.by == wanted.by
        && members(made) == members(wanted)
}

aggregate!(Conversation {
    name: "conversation",
    code: 3,
    topic: Conversations,
    latest_only: false,
    command: ConversationCommand,
    event: ConversationEvent,
    refusal: ConversationRefusal,
});

#[cfg(test)]
mod tests;
