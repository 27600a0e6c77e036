//! All command-apis, and in which order they are to be tried.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderValue;
use platform::registry::Members;
use platform::ring::Ring;
use tokio::sync::watch;
use uuid::Uuid;

use super::link::Link;

/// Whom a call is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whose {
    /// Whoever owns this conversation, for speed; any other can do it too.
    Owner(Uuid),
    /// Whoever's turn it is.
    Anyone,
}

/// The command-apis of one list.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    ring: Ring,
    links: Vec<Arc<Link>>,
}

impl Fleet {
    /// The fleet of a list; links that stand already are kept.
    fn next(&self, members: &Members, token: &HeaderValue, news: &watch::Sender<()>) -> Self {
        let known: HashMap<&str, &Arc<Link>> = self.links.iter().map(|link| (link.url(), link)).collect();
        let link = |url: &String| match known.get(url.as_str()) {
            Some(link) => Arc::clone(link),
            None => Arc::new(Link::new(url, token.clone(), news.clone())),
        };
        let names: Vec<&str> = members.iter().map(|url| name(url)).collect();
        Self { ring: Ring::new(&names), links: members.iter().map(link).collect() }
    }

    /// How many stand.
    pub(super) fn reachable(&self) -> usize {
        self.links.iter().filter(|link| link.stands()).count()
    }

    /// Whose a conversation is.
    pub(super) fn owner(&self, conversation_id: Uuid) -> Option<usize> {
        self.ring.order(&conversation_id.to_string()).next()
    }

    /// Those to be tried, in this order; `turn` is how many calls came before.
    pub(super) fn order(&self, whose: Whose, turn: usize) -> Vec<Arc<Link>> {
        match whose {
            Whose::Owner(id) => self.ring.order(&id.to_string()).map(|index| self.links[index].clone()).collect(),
            Whose::Anyone => {
                let (before, after) = self.links.split_at(turn.checked_rem(self.links.len()).unwrap_or_default());
                after.iter().chain(before).cloned().collect()
            }
        }
    }
}

/// What nginx knows a member by: host and port.
fn name(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split_once('/').map_or(rest, |(name, _)| name)
}

/// Follows the list, until it ends or nobody looks at the fleet any more; `news` is told whenever more can be reached.
pub(super) fn follow(
    mut members: watch::Receiver<Members>,
    token: HeaderValue,
    news: watch::Sender<()>,
) -> watch::Receiver<Arc<Fleet>> {
    let (publish, fleet) = watch::channel(Arc::default());
    tokio::spawn(async move {
        loop {
            let list = members.borrow_and_update().clone();
            publish.send_modify(|fleet: &mut Arc<Fleet>| *fleet = Arc::new(fleet.next(&list, &token, &news)));
            tokio::select! {
                () = publish.closed() => return,
                changed = members.changed() => if changed.is_err() {
                    // Nothing will be heard any more; those who are known go on.
                    return publish.closed().await;
                }
            }
        }
    });
    fleet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_known_by_host_and_port() {
        assert_eq!(name("http://10.0.0.7:8080"), "10.0.0.7:8080");
        assert_eq!(name("http://commands/behind/a/path"), "commands");
    }

    #[tokio::test]
    async fn links_are_kept_and_questions_go_round() {
        let (token, news) = (HeaderValue::from_static("x"), watch::Sender::default());
        let list = |urls: &[&str]| -> Members { urls.iter().map(|url| (*url).to_owned()).collect() };
        let one = Fleet::default().next(&list(&["http://127.0.0.1:1", "http://127.0.0.1:2"]), &token, &news);
        let two = one.next(&list(&["http://127.0.0.1:2", "http://127.0.0.1:3"]), &token, &news);
        assert!(Arc::ptr_eq(&one.links[1], &two.links[0]));
        let first = |turn| two.order(Whose::Anyone, turn)[0].url().to_owned();
        assert_ne!(first(0), first(1));
        assert_eq!(first(0), first(2));
        let owner = Whose::Owner(Uuid::from_u128(7));
        assert_eq!(two.order(owner, 0)[0].url(), two.order(owner, 1)[0].url());
        assert!(Fleet::default().order(owner, 0).is_empty() && Fleet::default().order(Whose::Anyone, 3).is_empty());
    }
}
