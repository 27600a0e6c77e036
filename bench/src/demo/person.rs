//! One of those who talk: an account, logged in, online, hearing everything.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context;
use parking_lot::Mutex;
use parlance_client::{Client, PositionToken, Register, Server, Session, SessionOptions, Update, Updates};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use uuid::Uuid;

use super::PASSWORD;

/// How long an event may take to arrive, whatever happens to the server meanwhile.
const BOUND: Duration = Duration::from_mins(2);

/// What was heard in each conversation: who said what.
type Heard = HashMap<Uuid, Vec<(Uuid, String)>>;

/// One of those who talk.
pub(super) struct Person {
    pub(super) name: String,
    pub(super) client: Client,
    pub(super) session: Session,
    heads: watch::Receiver<HashMap<Uuid, u64>>,
    heard: Arc<Mutex<Heard>>,
    listening: JoinHandle<()>,
}

impl Person {
    /// Registers, logs in and goes online.
    pub(super) async fn arrive(server: &Server, name: String) -> anyhow::Result<Self> {
        let user = Register {
            username: name.clone(),
            email: format!("{name}@example.org"),
            password: PASSWORD.to_owned(),
            display_name: Some(format!("Participant {}", name.rsplit('-').next().unwrap_or(&name))),
        };
        server.register(&user).await.with_context(|| format!("{name} cannot register"))?;
        let client = server.log_in(&name, PASSWORD, None).await.with_context(|| format!("{name} cannot log in"))?;
        let (session, updates) = client.open_session(SessionOptions::default()).await?;
        let (heads, progress) = watch::channel(HashMap::new());
        let heard = Arc::new(Mutex::new(Heard::new()));
        let listening = tokio::spawn(listen(updates, session.clone(), Arc::clone(&heard), heads));
        Ok(Self { name, client, session, heads: progress, heard, listening })
    }

    /// Waits until everything of a conversation up to `seq` has come over the WebSocket.
    pub(super) async fn has(&self, conversation: Uuid, seq: u64) -> anyhow::Result<()> {
        let mut heads = self.heads.clone();
        timeout(BOUND, heads.wait_for(|heads| heads.get(&conversation).is_some_and(|head| *head >= seq)))
            .await
            .with_context(|| format!("{conversation}/{seq} did not reach {} within {BOUND:?}", self.name))?
            .with_context(|| format!("the session of {} is over", self.name))?;
        Ok(())
    }

    /// What was heard live, in its order.
    pub(super) fn heard(&self, conversation: Uuid) -> Vec<(Uuid, String)> {
        self.heard.lock().get(&conversation).cloned().unwrap_or_default()
    }

    /// What the history says, `position` and all before it in it.
    pub(super) async fn history(
        &self,
        conversation: Uuid,
        position: &PositionToken,
    ) -> anyhow::Result<Vec<(Uuid, String)>> {
        let history = self.client.at_least(position).strictly().history(conversation, 0).await?;
        let lines = history.into_iter().map(|view| (view.message.sender_id, view.message.content.unwrap_or_default()));
        Ok(lines.collect())
    }

    /// Goes offline; the name to log in with stays.
    pub(super) async fn leave(self) -> String {
        self.session.close().await;
        // Over in either case.
        let _ = self.listening.await;
        self.name
    }
}

async fn listen(
    mut updates: Updates,
    session: Session,
    heard: Arc<Mutex<Heard>>,
    heads: watch::Sender<HashMap<Uuid, u64>>,
) {
    while let Some(update) = updates.next().await {
        let Update::Event(event) = update else { continue };
        let (conversation, seq) = (event.conversation_id, event.seq);
        if let Some(message) = event.message() {
            let line = (message.sender_id, message.content.unwrap_or_default());
            heard.lock().entry(conversation).or_default().push(line);
        }
        session.read(conversation, seq);
        heads.send_modify(|heads| {
            heads.insert(conversation, seq);
        });
    }
}
