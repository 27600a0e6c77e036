//! First pages of lists, which clients ask for at every start: they are kept for a while where there is a place for it.

use platform::cache::{Answers, Kept, Owner, Part};
use schemas::PositionToken;

use crate::freshness::{Freshness, Scope};
use crate::state::QueryState;

/// A first page that can be kept.
pub(crate) struct FirstPage<'a> {
    answers: &'a Answers,
    owner: Owner,
    name: String,
    scope: Scope,
    /// How far the read models had got before anything was read.
    as_of: PositionToken,
}

impl<'a> FirstPage<'a> {
    /// One of these shards, of this name among its owner's; `None` where nothing is kept. To be called before the data
    /// are read.
    pub(crate) fn of(state: &'a QueryState, owner: Owner, name: String, scope: Scope) -> Option<Self> {
        let answers = state.answers()?;
        let as_of = scope.applied(state.applied());
        Some(Self { answers, owner, name, scope, as_of })
    }

    /// The page, if it is kept and as new as is asked for.
    pub(crate) async fn find(&self, fresh: &Freshness) -> Option<Kept> {
        let kept = self.answers.get(self.owner, &self.name, &self.as_of).await?;
        fresh.is_met_by(&self.scope, &kept.as_of).then_some(kept)
    }

    /// Keeps what was read, which is made from these parts.
    pub(crate) async fn keep(self, body: Vec<u8>, parts: Vec<Part>) {
        self.answers.put(self.owner, &self.name, &Kept { as_of: self.as_of, parts, body }).await;
    }
}
