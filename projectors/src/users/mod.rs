//! Projection `users`: accounts as others see them, and what each may do beside.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use schemas::{Event, Record, Topic, UserProfileChanged, UserRegistered, UserRole};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::projection::{ApplyError, Consumer, Description, Projection};

/// See the module.
pub(crate) struct Users;

/// What a batch says of one user.
#[derive(Clone, Copy, Default)]
struct Change<'a> {
    user_id: Uuid,
    /// Whether they are an operator now, where that changed.
    operator: Option<bool>,
    registered: Option<&'a UserRegistered>,
    profile: Option<&'a UserProfileChanged>,
}

#[async_trait]
impl Projection for Users {
    fn describe(&self) -> Description {
        Description { name: "users", consumer: Consumer::ReadModels, topics: &[Topic::Users], tables: &["users"] }
    }

    async fn apply(&self, connection: &mut PgConnection, batch: &[Arc<Record>]) -> Result<(), ApplyError> {
        let changes = collapse(batch);
        register(connection, changes.iter().filter_map(|change| Some((change.registered?, change.profile)))).await?;
        let profiles = changes.iter().filter(|change| change.registered.is_none());
        change(connection, profiles.filter_map(|change| change.profile)).await?;
        set_roles(connection, changes.iter().filter_map(|change| Some((change.user_id, change.operator?)))).await
    }
}

fn collapse(batch: &[Arc<Record>]) -> Vec<Change<'_>> {
    let mut changes: HashMap<Uuid, Change<'_>> = HashMap::new();
    for record in batch {
        match &record.event {
            Event::UserRegistered(registered) => {
                let change = change_of(&mut changes, registered.user_id);
                *change = Change { user_id: registered.user_id, registered: Some(registered), ..Change::default() };
            }
            Event::UserProfileChanged(profile) => change_of(&mut changes, profile.user_id).profile = Some(profile),
            Event::UserRoleGranted(granted) => match granted.role {
                UserRole::Operator => change_of(&mut changes, granted.user_id).operator = Some(true),
            },
            Event::UserRoleRevoked(revoked) => match revoked.role {
                UserRole::Operator => change_of(&mut changes, revoked.user_id).operator = Some(false),
            },
            Event::UserPasswordChanged(_)
            | Event::AuditRead(_)
            | Event::SessionStarted(_)
            | Event::SessionRefreshed(_)
            | Event::SessionRevoked(_)
            | Event::SessionReuseDetected(_)
            | Event::Numbered(_)
            | Event::MessageDelivered(_)
            | Event::MessageRead(_) => {}
        }
    }
    changes.into_values().collect()
}

fn change_of<'m, 'a>(changes: &'m mut HashMap<Uuid, Change<'a>>, user_id: Uuid) -> &'m mut Change<'a> {
    changes.entry(user_id).or_insert(Change { user_id, ..Change::default() })
}

async fn register<'a>(
    connection: &mut PgConnection,
    users: impl Iterator<Item = (&'a UserRegistered, Option<&'a UserProfileChanged>)>,
) -> Result<(), ApplyError> {
    let users: Vec<_> = users.collect();
    if users.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = users.iter().map(|(user, _)| user.user_id).collect();
    let usernames: Vec<Option<&str>> = users.iter().map(|(user, _)| user.username.as_deref()).collect();
    let names: Vec<Option<&str>> = users
        .iter()
        .map(|(user, profile)| profile.map_or(&user.display_name, |profile| &profile.display_name).as_deref())
        .collect();
    let emails: Vec<Option<&str>> = users.iter().map(|(user, _)| user.email.as_deref()).collect();
    let avatars: Vec<Option<Uuid>> =
        users.iter().map(|(_, profile)| profile.and_then(|profile| profile.avatar_file_id)).collect();
    let times: Vec<_> = users.iter().map(|(user, _)| user.at).collect();
    sqlx::query(
        "INSERT INTO users AS t \
                (user_id, username, display_name, display_name_folded, email, avatar_file_id, created_at) \
         SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::uuid[], \
                              $7::timestamptz[]) \
         ON CONFLICT (user_id) DO UPDATE SET username = excluded.username, display_name = excluded.display_name, \
            display_name_folded = excluded.display_name_folded, email = excluded.email, \
            avatar_file_id = excluded.avatar_file_id, created_at = excluded.created_at, is_operator = excluded.is_operator",
    )
    .bind(ids)
    .bind(usernames)
    .bind(&names)
    .bind(folded(&names))
    .bind(emails)
    .bind(avatars)
    .bind(times)
    .execute(connection)
    .await?;
    Ok(())
}

async fn change<'a>(
    connection: &mut PgConnection,
    profiles: impl Iterator<Item = &'a UserProfileChanged>,
) -> Result<(), ApplyError> {
    let profiles: Vec<_> = profiles.collect();
    if profiles.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = profiles.iter().map(|profile| profile.user_id).collect();
    let names: Vec<Option<&str>> = profiles.iter().map(|profile| profile.display_name.as_deref()).collect();
    let avatars: Vec<Option<Uuid>> = profiles.iter().map(|profile| profile.avatar_file_id).collect();
    sqlx::query(
        "UPDATE users t \
            SET display_name = u.display_name, display_name_folded = u.folded, avatar_file_id = u.avatar_file_id \
           FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[]) \
             AS u(user_id, display_name, folded, avatar_file_id) \
          WHERE t.user_id = u.user_id",
    )
    .bind(ids)
    .bind(&names)
    .bind(folded(&names))
    .bind(avatars)
    .execute(connection)
    .await?;
    Ok(())
}

async fn set_roles(
    connection: &mut PgConnection,
    changed: impl Iterator<Item = (Uuid, bool)>,
) -> Result<(), ApplyError> {
    let (ids, operators): (Vec<Uuid>, Vec<bool>) = changed.unzip();
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE users t SET is_operator = u.is_operator \
           FROM unnest($1::uuid[], $2::boolean[]) AS u(user_id, is_operator) WHERE t.user_id = u.user_id",
    )
    .bind(ids)
    .bind(operators)
    .execute(connection)
    .await?;
    Ok(())
}

/// Names as search compares them.
fn folded(names: &[Option<&str>]) -> Vec<Option<String>> {
    names.iter().map(|name| name.map(str::to_lowercase)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, ann, profile, registered, role};

    #[tokio::test]
    async fn a_profile_changes_with_its_account_or_after_it() {
        let bench = Bench::new(&Users).await;
        for event in [registered(1, "ann"), registered(2, "ben"), profile(1, "Ann")] {
            bench.keep(event);
        }
        bench.apply().await;
        bench.keep(profile(2, "Ben"));
        bench.keep(profile(2, "Benjamin"));
        bench.apply().await;
        let rows: Vec<(Uuid, String, Option<String>, String)> =
            bench.rows("SELECT user_id, display_name, display_name_folded, email FROM users ORDER BY username").await;
        assert_eq!(
            rows,
            [
                (ann(), "Ann".into(), Some("ann".into()), "ann@example.org".into()),
                (Uuid::from_u128(2), "Benjamin".into(), Some("benjamin".into()), "ben@example.org".into()),
            ]
        );
    }
    #[tokio::test]
    async fn roles_are_as_they_were_set_last() {
        let bench = Bench::new(&Users).await;
        bench.keep(registered(1, "ann"));
        bench.keep(role(1, true));
        bench.keep(registered(2, "ben"));
        bench.apply().await;
        let operators = async || bench.rows::<(Uuid,)>("SELECT user_id FROM users WHERE is_operator").await;
        assert_eq!(operators().await, [(ann(),)]);
        bench.keep(role(1, false));
        bench.keep(role(2, false));
        bench.keep(role(2, true));
        bench.apply().await;
        assert_eq!(operators().await, [(Uuid::from_u128(2),)]);
    }
}
