//! What the demo's people do not do: groups whose names, settings, members and roles change while they talk.

use parlance_client::{AdvanceReceipt, ChangeConversation, Client, History, Role, Server, text_message};
use uuid::Uuid;

use crate::people::{PASSWORD, log_in, name, register};

/// Some people, and a group of theirs.
pub(super) struct Rounds {
    names: Vec<String>,
    people: Vec<Client>,
    group: Uuid,
    round: usize,
}

impl Rounds {
    /// Registers them; the first opens the group with the second.
    pub(super) async fn begin(server: &Server) -> Self {
        let names: Vec<String> = ["owner", "admin", "guest", "passer-by"].into_iter().map(name).collect();
        let mut people = Vec::new();
        for name in &names {
            register(server, name).await;
            people.push(log_in(server, name).await);
        }
        let group = people[0].create_group("the round", vec![people[1].user_id()]).await.unwrap().conversation_id;
        Self { names, people, group, round: 0 }
    }

    /// Their names, with the password of each.
    pub(super) fn names(&self) -> impl Iterator<Item = (String, String)> {
        self.names.clone().into_iter().map(|name| (name, PASSWORD.to_owned()))
    }

    /// One round: whatever may change does, and something is said before and after.
    pub(super) async fn go(&mut self) {
        self.round += 1;
        let [owner, admin, guest, passer_by] = &self.people[..] else { unreachable!("there are four") };
        self.say(owner).await;
        let named = ChangeConversation { name: Some(format!("round {}", self.round)), history: None };
        owner.change_conversation(self.group, &named).await.unwrap();
        let role = if self.round.is_multiple_of(2) { Role::Member } else { Role::Admin };
        owner.put_member(self.group, admin.user_id(), role).await.unwrap();
        owner.put_member(self.group, guest.user_id(), Role::Member).await.unwrap();
        let said = self.say(guest).await;
        self.mark(admin, Some(said), Some(said - 1)).await;
        self.mark(owner, None, Some(said)).await;
        // What was said is said to whoever was there: with them gone it stays as far as it had got.
        owner.remove_member(self.group, guest.user_id()).await.unwrap();
        let history = if self.round.is_multiple_of(3) { History::All } else { History::SinceJoin };
        let hidden = ChangeConversation { name: None, history: Some(history) };
        owner.change_conversation(self.group, &hidden).await.unwrap();
        owner.put_member(self.group, passer_by.user_id(), Role::Member).await.unwrap();
        let said = self.say(admin).await;
        self.mark(passer_by, Some(said), None).await;
        if !self.round.is_multiple_of(4) {
            passer_by.leave(self.group).await.unwrap();
        }
        self.say(owner).await;
        // A group that only its owner is left in.
        let alone = owner.create_group("in and out", vec![guest.user_id()]).await.unwrap().conversation_id;
        let sent = owner.send(alone, &text_message("anybody?")).await.unwrap();
        let read = AdvanceReceipt { delivered_to: None, read_to: Some(sent.seq) };
        guest.mark(alone, &read).await.unwrap();
        guest.leave(alone).await.unwrap();
        owner.send(alone, &text_message("nobody.")).await.unwrap();
    }

    async fn say(&self, client: &Client) -> u64 {
        client.send(self.group, &text_message(format!("round {}: grüß euch 👋", self.round))).await.unwrap().seq
    }

    async fn mark(&self, client: &Client, delivered_to: Option<u64>, read_to: Option<u64>) {
        client.mark(self.group, &AdvanceReceipt { delivered_to, read_to }).await.unwrap();
    }
}
