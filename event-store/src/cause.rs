//! Why an event came to be: its command alone, or an event before it that the command made.

use std::sync::Arc;

use uuid::Uuid;

use crate::command::Context;

/// A context and its stored form.
type Stored = (Arc<Context>, Arc<str>);

/// What stands with the events of one command.
#[derive(Debug)]
pub(crate) struct Causes<'a> {
    command: (Option<&'a Arc<Context>>, Option<&'a Arc<str>>),
    /// For what an event of the command caused.
    caused: Option<Stored>,
}

impl<'a> Causes<'a> {
    pub(crate) fn new(context: Option<&'a Arc<Context>>, metadata: Option<&'a Arc<str>>) -> Self {
        Self { command: (context, metadata), caused: None }
    }

    /// What stands with the next event.
    pub(crate) fn next(&self) -> (Option<Arc<Context>>, Option<Arc<str>>) {
        match &self.caused {
            Some((context, metadata)) => (Some(context.clone()), Some(metadata.clone())),
            None => (self.command.0.cloned(), self.command.1.cloned()),
        }
    }

    /// What follows is caused by this event: of the same correlation, which is its own id where it has no other.
    pub(crate) fn because_of(&mut self, event_id: Uuid) {
        let mut context = self.next().0.map(|context| Context::clone(&context)).unwrap_or_default();
        context.correlation_id.get_or_insert_with(|| event_id.to_string());
        context.causation_id = Some(event_id);
        self.caused = context.stored();
    }
}

impl Context {
    /// With its stored form; `None` where there is nothing to store.
    pub(crate) fn stored(self) -> Option<Stored> {
        if self.is_empty() {
            return None;
        }
        let text = serde_json::to_string(&self).expect("texts and ids");
        Some((Arc::new(self), Arc::from(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_event_causes_has_its_correlation_and_names_it() {
        let event_id = Uuid::from_u128(7);
        let command = Context { correlation_id: Some("request".to_owned()), ..Context::default() };
        let (context, metadata) = command.stored().unzip();
        let mut causes = Causes::new(context.as_ref(), metadata.as_ref());
        assert_eq!(causes.next(), (context.clone(), metadata.clone()));
        causes.because_of(event_id);
        let (effect, stored) = causes.next();
        let wanted =
            Context { correlation_id: Some("request".to_owned()), causation_id: Some(event_id), ..Context::default() };
        assert_eq!(effect.as_deref(), Some(&wanted));
        assert_eq!(serde_json::from_str::<Context>(&stored.unwrap()).unwrap(), wanted);
    }

    #[test]
    fn the_correlation_of_a_command_without_one_is_its_first_event() {
        let mut causes = Causes::new(None, None);
        assert_eq!(causes.next(), (None, None));
        for event_id in [7, 8].map(Uuid::from_u128) {
            causes.because_of(event_id);
            let effect = causes.next().0.unwrap();
            assert_eq!(effect.correlation_id, Some(Uuid::from_u128(7).to_string()));
            assert_eq!(effect.causation_id, Some(event_id));
        }
    }
}
