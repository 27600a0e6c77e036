//! `parlance chat`: a small terminal client, a line a message.

use std::{
    collections::{HashMap, HashSet},
    io::{self, IsTerminal, Write},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use parlance_client::{Client, CloseReason, Event, ReceiptMoved, Register, Server, SessionOptions, Update, User};
use tokio::{
    io::{AsyncBufReadExt, BufReader, stdin},
    sync::mpsc,
    time::timeout,
};
use uuid::Uuid;

/// How many answers to a search for a username are looked through.
const PAGES: usize = 10;

/// How many lines may be on their way at once.
const AT_ONCE: usize = 64;
/// How long what was typed may take to leave when the user does.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);

/// Talk with someone, from a terminal: a line is a message, the end of input or `/quit` leaves.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Who you are
    username: String,
    /// Whom to talk with
    with: String,
    /// The server
    #[arg(long, env = "PARLANCE_CHAT_SERVER", default_value = "http://localhost:8080")]
    server: String,
    /// Register yourself first
    #[arg(long)]
    register: bool,
    /// Your password; asked for where it is not given
    #[arg(long, env = "PARLANCE_CHAT_PASSWORD", hide_env_values = true)]
    password: Option<String>,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let server = Server::new(&arguments.server)?;
    let password = match &arguments.password {
        Some(password) => password.clone(),
        None => ask_password()?,
    };
    if arguments.register {
        let user = Register {
            username: arguments.username.clone(),
            email: format!("{}@localhost", arguments.username),
            password: password.clone(),
            display_name: None,
        };
        server.register(&user).await.context("cannot register")?;
    }
    let client = server.log_in(&arguments.username, &password, None).await.context("cannot log in")?;
    let other = find(&client, &arguments.with).await?;
    let conversation = client.open_direct(other.user_id).await.context("cannot open a conversation")?.conversation_id;
    let screen = Screen::new(conversation, client.user_id(), &arguments.with);
    println!("talking with {}; /quit leaves", screen.other);
    let outcome = talk(&client, screen).await;
    // The session would end by itself in a day; a failure to end it now is none of the user's business.
    let _ = client.log_out().await;
    outcome
}

/// The password, typed unseen where there is a terminal.
fn ask_password() -> anyhow::Result<String> {
    let hidden = io::stdin().is_terminal() && echo("-echo");
    eprint!("password: ");
    io::stderr().flush()?;
    let mut password = String::new();
    let read = io::stdin().read_line(&mut password);
    if hidden {
        echo("echo");
        eprintln!();
    }
    read.context("no password")?;
    Ok(password.trim_end_matches(['\r', '\n']).to_owned())
}

fn echo(mode: &str) -> bool {
    Command::new("stty").arg(mode).stdin(Stdio::inherit()).status().is_ok_and(|status| status.success())
}

async fn find(client: &Client, username: &str) -> anyhow::Result<User> {
    let wanted = username.to_lowercase();
    let mut cursor = None;
    for _ in 0..PAGES {
        let page = client.find_users(&wanted, cursor.as_deref()).await?;
        if let Some(user) = page.items.into_iter().find(|user| user.username.as_deref() == Some(&wanted)) {
            return Ok(user);
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    bail!("nobody is called {username}")
}

async fn talk(client: &Client, mut screen: Screen) -> anyhow::Result<ExitCode> {
    let (session, mut updates) = client.open_session(SessionOptions::default()).await?;
    let mut lines = BufReader::new(stdin()).lines();
    let (answered, mut answers) = mpsc::channel(AT_ONCE);
    let mut leaving = false;
    loop {
        tokio::select! {
            update = updates.next() => match update {
                Some(Update::Closed(CloseReason::Asked)) | None => return Ok(ExitCode::SUCCESS),
                Some(Update::Closed(reason)) => bail!("the session is over: {reason:?}"),
                Some(update) => {
                    if let Update::Event(event) = &update
                        && event.conversation_id == screen.conversation
                    {
                        session.read(event.conversation_id, event.seq);
                    }
                    if let Some(line) = screen.show(&update) {
                        println!("{line}");
                    }
                }
            },
            Some(answer) = answers.recv() => {
                let (text, answer): (String, _) = answer;
                if let Err(error) = answer {
                    let error: parlance_client::Error = error;
                    println!("  not sent ({error}): {text}");
                }
            }
            line = lines.next_line(), if !leaving => match line?.as_deref() {
                None | Some("/quit") => {
                    // What was typed leaves first: a pipe ends sooner than its lines are sent.
                    leaving = true;
                    let (session, answered) = (session.clone(), answered.clone());
                    tokio::spawn(async move {
                        // All room is free once all answers are in. What is not answered by then is lost with us.
                        let _ = timeout(LEAVE_WITHIN, answered.reserve_many(AT_ONCE)).await;
                        session.close().await;
                    });
                }
                Some("") => {}
                Some(text) => {
                    let text = text.to_owned();
                    let pending = session.send(screen.conversation, text.clone()).await?;
                    screen.mine.insert(pending.message_id());
                    let permit = answered.clone().reserve_owned().await?;
                    tokio::spawn(async move {
                        let outcome = pending.outcome().await;
                        permit.send((text, outcome));
                    });
                }
            },
        }
    }
}

/// What is shown of what happens: pure, so that it can be tested.
struct Screen {
    conversation: Uuid,
    me: Uuid,
    other: String,
    /// Typed here: shown already.
    mine: HashSet<Uuid>,
    /// Delivered and read, as shown last, of the other.
    shown: (u64, u64),
    /// The last of our own messages.
    last_own: u64,
    names: HashMap<Uuid, String>,
}

impl Screen {
    fn new(conversation: Uuid, me: Uuid, other: &str) -> Self {
        Self {
            conversation,
            me,
            other: harmless(other),
            mine: HashSet::new(),
            shown: (0, 0),
            last_own: 0,
            names: HashMap::from([(me, "you".to_owned())]),
        }
    }

    /// The line that an update is worth, if any.
    fn show(&mut self, update: &Update) -> Option<String> {
        match update {
            Update::Event(event) if event.conversation_id == self.conversation => self.event(event),
            Update::Receipt(receipt) if receipt.conversation_id == self.conversation => self.receipt(receipt),
            Update::Offline { reason, retry_in } => {
                Some(format!("  offline ({}); trying again in {:.1} s", harmless(reason), retry_in.as_secs_f64()))
            }
            _ => None,
        }
    }

    fn event(&mut self, event: &Event) -> Option<String> {
        let message = event.message()?;
        if message.sender_id == self.me {
            self.last_own = event.seq;
        }
        if self.mine.remove(&message.message_id) {
            return None;
        }
        let name = self.names.get(&message.sender_id).unwrap_or(&self.other);
        let at = event.at.time();
        let content = message.content.as_deref().map_or("(deleted)".to_owned(), harmless);
        Some(format!("{:02}:{:02} {name}: {content}", at.hour(), at.minute()))
    }

    fn receipt(&mut self, receipt: &ReceiptMoved) -> Option<String> {
        if receipt.user_id == self.me {
            return None;
        }
        let before = std::mem::replace(&mut self.shown, (receipt.delivered_to, receipt.read_to));
        let reached = |before, now| before < self.last_own && self.last_own <= now;
        if reached(before.1, receipt.read_to) {
            Some("  ✓✓ read".to_owned())
        } else if reached(before.0, receipt.delivered_to) {
            Some("  ✓ delivered".to_owned())
        } else {
            None
        }
    }
}

/// What others wrote, without what a terminal would obey.
fn harmless(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Uuid = Uuid::from_u128(0xa);
    const BEN: Uuid = Uuid::from_u128(0xb);
    const HERE: Uuid = Uuid::from_u128(0xc);

    fn message(seq: u64, sender: Uuid, id: Uuid, content: &str) -> Update {
        let at = "2026-01-01T12:34:56.000Z";
        let event = serde_json::json!({
            "conversation_id": HERE, "seq": seq, "position": "c1.1", "at": at, "event": "message.sent",
            "data": {
                "message_id": id, "conversation_id": HERE, "seq": seq, "sender_id": sender, "type": "text",
                "content": content, "file_ids": [], "reply_to": null, "mentions": [], "created_at": at,
                "edited_at": null, "deleted": false
            }
        });
        Update::Event(serde_json::from_value(event).unwrap())
    }

    fn receipt(user: Uuid, delivered_to: u64, read_to: u64) -> Update {
        let receipt = serde_json::json!({
            "conversation_id": HERE, "user_id": user, "delivered_to": delivered_to, "read_to": read_to,
            "at": "2026-01-01T12:34:56.000Z"
        });
        Update::Receipt(serde_json::from_value(receipt).unwrap())
    }

    #[test]
    fn messages_of_others_and_of_other_devices_are_shown() {
        let mut screen = Screen::new(HERE, ANN, "ben");
        let typed = Uuid::now_v7();
        screen.mine.insert(typed);
        assert_eq!(screen.show(&message(2, ANN, typed, "typed here")), None);
        assert_eq!(screen.show(&message(3, ANN, BEN, "elsewhere")).as_deref(), Some("12:34 you: elsewhere"));
        assert_eq!(screen.show(&message(4, BEN, BEN, "hi \x1b[2J👋")).as_deref(), Some("12:34 ben: hi \u{fffd}[2J👋"));
    }

    #[test]
    fn the_state_of_the_last_own_message_is_shown_once() {
        let mut screen = Screen::new(HERE, ANN, "ben");
        screen.show(&message(2, ANN, HERE, "hello"));
        assert_eq!(screen.show(&receipt(ANN, 2, 2)), None);
        assert_eq!(screen.show(&receipt(BEN, 1, 0)), None);
        assert_eq!(screen.show(&receipt(BEN, 2, 0)).as_deref(), Some("  ✓ delivered"));
        assert_eq!(screen.show(&receipt(BEN, 2, 2)).as_deref(), Some("  ✓✓ read"));
        assert_eq!(screen.show(&receipt(BEN, 2, 2)), None);
    }
}
