//! Roles of users, as the command line gives and takes them: beside the servers, by the log itself.

use domain::user::{Role, UserRefusal};
use event_store::{Context, EventStore, ExecuteError, Log};
use uuid::Uuid;

use crate::commands::{EMAILS, ROLES, SetRole, USERNAMES, role_key};
use crate::validate::{email, username};

/// How many are listed at most.
const MOST_LISTED: u32 = 10_000;

/// The user whom a text means: an id, a username or an e-mail address.
///
/// # Errors
/// A database that does not answer.
pub async fn find_user(log: &Log, text: &str) -> Result<Option<Uuid>, sqlx::Error> {
    if let Ok(user_id) = text.parse() {
        return Ok(Some(user_id));
    }
    match (email(text), username(text)) {
        (Some(email), _) => log.lookup(EMAILS, &email).await,
        (None, Some(name)) => log.lookup(USERNAMES, &name).await,
        (None, None) => Ok(None),
    }
}

/// Gives a user a role, or takes it; whether that changed anything.
///
/// # Errors
/// A user that there is not, or a log that does not take it.
pub async fn set_role(
    store: &EventStore,
    user_id: Uuid,
    role: Role,
    granted: bool,
) -> Result<bool, ExecuteError<UserRefusal>> {
    let executed = store.execute(SetRole { user_id, role, granted }, Context::default()).await?;
    Ok(executed.changed)
}

/// The users who have a role.
///
/// # Errors
/// A database that does not answer.
pub async fn users_with(log: &Log, role: Role) -> Result<Vec<Uuid>, sqlx::Error> {
    let found = log.lookup_prefix(ROLES, &role_key(role, ""), MOST_LISTED).await?;
    Ok(found.into_iter().map(|(_, user_id)| user_id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Api;

    #[tokio::test]
    async fn a_role_is_given_once_listed_and_taken() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        let store = api.service.store();
        for name in ["ANN", "ann@example.org", &ann.user_id.to_string()] {
            assert_eq!(find_user(store.log(), name).await.unwrap(), Some(ann.user_id), "{name}");
        }
        assert_eq!(find_user(store.log(), "nobody").await.unwrap(), None);
        let set = async |granted| set_role(store, ann.user_id, Role::Operator, granted).await.unwrap();
        assert!(set(true).await && !set(true).await);
        assert_eq!(users_with(store.log(), Role::Operator).await.unwrap(), [ann.user_id]);
        assert!(set(false).await && !set(false).await);
        assert!(users_with(store.log(), Role::Operator).await.unwrap().is_empty());
        assert_eq!((api.events("user.role_granted").await, api.events("user.role_revoked").await), (1, 1));
        let unknown = set_role(store, Uuid::now_v7(), Role::Operator, true).await;
        assert!(matches!(unknown, Err(ExecuteError::Refused(UserRefusal::Unknown))));
    }
}
