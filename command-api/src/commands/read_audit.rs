//! Takes down that an operator reads the audit.

use domain::audit::{AuditRead, Read, Reading, ReadingRefusal};
use domain::kernel::LogTopic;
use domain::user::User;
use event_store::{Command, Reads, Workspace};
use uuid::Uuid;

/// A reading by one who may have the role.
pub(crate) struct ReadAudit {
    pub(crate) user_id: Uuid,
    /// The reading's own.
    pub(crate) reading_id: Uuid,
    pub(crate) wanted: AuditRead,
}

impl Command for ReadAudit {
    type Output = ();
    type Refusal = ReadingRefusal;

    fn topic(&self) -> LogTopic {
        LogTopic::Users
    }

    fn key(&self) -> Uuid {
        self.user_id
    }

    fn reads(&self, reads: &mut Reads) {
        reads.stream::<User>(self.user_id);
        reads.fresh::<Reading>(self.reading_id);
    }

    fn decide(&self, work: &mut Workspace<'_>) -> Result<(), ReadingRefusal> {
        let read = Read::by(work.stream::<User>(self.user_id).state, self.wanted.clone());
        for event in work.stream::<Reading>(self.reading_id).state.decide(read)? {
            work.emit::<Reading>(self.reading_id, event);
        }
        Ok(())
    }
}
