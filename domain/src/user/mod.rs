//! A user's account: names, profile, password, roles.

mod event;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use event::{PasswordChanged, ProfileChanged, Registered, Role, RoleGranted, RoleRevoked, UserEvent};

use crate::kernel::aggregate;

/// The state that decisions about an account need.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct User {
    account: Option<Account>,
}

/// A registered account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// The name to log in with.
    pub username: String,
    /// The name that others see.
    pub display_name: Option<String>,
    /// The avatar's file.
    pub avatar_file_id: Option<Uuid>,
    /// Argon2id, PHC string format.
    pub password_hash: String,
    /// What the user may do beside what every user may.
    #[serde(default)]
    pub roles: BTreeSet<Role>,
}

/// What can be asked of an account.
#[derive(Clone, Debug)]
pub enum UserCommand {
    /// Make the account.
    Register {
        /// What the account starts with.
        account: Registered,
        /// Whether another account has the username.
        username_taken: bool,
        /// Whether another account has the e-mail address.
        email_taken: bool,
    },
    /// Change what is given, keep the rest.
    ChangeProfile {
        /// The name that others see.
        display_name: Option<String>,
    },
    /// Set a password whose predecessor the caller has proved to know.
    ChangePassword {
        /// The hash that was current when the old password was checked.
        checked_against: String,
        /// Argon2id, PHC string format.
        password_hash: String,
    },
    /// Give a role, or take it.
    SetRole {
        /// Which.
        role: Role,
        /// Whether the user has it from now on.
        granted: bool,
    },
}

/// Why an account command was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserRefusal {
    /// The id is in use.
    #[error("this account exists already")]
    Exists,
    /// No such account.
    #[error("there is no such account")]
    Unknown,
    /// Another account has the username.
    #[error("the username is taken")]
    UsernameTaken,
    /// Another account has the e-mail address.
    #[error("the e-mail address is taken")]
    EmailTaken,
    /// The password was changed between the check and the command.
    #[error("the password was changed meanwhile")]
    PasswordMoved,
}

impl User {
    /// The account, once registered.
    pub fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    /// Whether there is such an account, and it has a role.
    pub fn has(&self, role: Role) -> bool {
        self.account.as_ref().is_some_and(|account| account.roles.contains(&role))
    }

    /// Decides `command`; no event means that all is so already.
    pub fn decide(&self, command: UserCommand) -> Result<Vec<UserEvent>, UserRefusal> {
        match command {
            UserCommand::Register { account, username_taken, email_taken } => {
                self.register(account, username_taken, email_taken)
            }
            UserCommand::ChangeProfile { display_name } => self.change_profile(display_name),
            UserCommand::ChangePassword { checked_against, password_hash } => {
                self.change_password(&checked_against, password_hash)
            }
            UserCommand::SetRole { role, granted } => self.set_role(role, granted),
        }
    }

    fn register(
        &self,
        account: Registered,
        username_taken: bool,
        email_taken: bool,
    ) -> Result<Vec<UserEvent>, UserRefusal> {
        if self.account.is_some() {
            return Err(UserRefusal::Exists);
        }
        if username_taken {
            return Err(UserRefusal::UsernameTaken);
        }
        if email_taken {
            return Err(UserRefusal::EmailTaken);
        }
        Ok(vec![account.into()])
    }

    fn change_profile(&self, display_name: Option<String>) -> Result<Vec<UserEvent>, UserRefusal> {
        let account = self.account.as_ref().ok_or(UserRefusal::Unknown)?;
        let display_name = display_name.or_else(|| account.display_name.clone());
        if display_name == account.display_name {
            return Ok(vec![]);
        }
        Ok(vec![ProfileChanged { display_name, avatar_file_id: account.avatar_file_id }.into()])
    }

    fn change_password(&self, checked_against: &str, password_hash: String) -> Result<Vec<UserEvent>, UserRefusal> {
        let account = self.account.as_ref().ok_or(UserRefusal::Unknown)?;
        if account.password_hash != checked_against {
            return Err(UserRefusal::PasswordMoved);
        }
        Ok(vec![PasswordChanged { password_hash }.into()])
    }

    fn set_role(&self, role: Role, granted: bool) -> Result<Vec<UserEvent>, UserRefusal> {
        let account = self.account.as_ref().ok_or(UserRefusal::Unknown)?;
        Ok(match (account.roles.contains(&role), granted) {
            (false, true) => vec![RoleGranted { role }.into()],
            (true, false) => vec![RoleRevoked { role }.into()],
            (true, true) | (false, false) => vec![],
        })
    }

    fn evolve(&mut self, event: UserEvent) {
        match event {
            UserEvent::Registered(made) => {
                self.account = Some(Account {
                    username: made.username,
                    display_name: made.display_name,
                    avatar_file_id: None,
                    password_hash: made.password_hash,
                    roles: BTreeSet::new(),
                });
            }
            UserEvent::ProfileChanged(profile) => {
                if let Some(account) = &mut self.account {
                    account.display_name = profile.display_name;
                    account.avatar_file_id = profile.avatar_file_id;
                }
            }
            UserEvent::PasswordChanged(password) => {
                if let Some(account) = &mut self.account {
                    account.password_hash = password.password_hash;
                }
            }
            UserEvent::RoleGranted(granted) => {
                if let Some(account) = &mut self.account {
                    account.roles.insert(granted.role);
                }
            }
            UserEvent::RoleRevoked(revoked) => {
                if let Some(account) = &mut self.account {
                    account.roles.remove(&revoked.role);
                }
            }
        }
    }
}

aggregate!(User {
    name: "user",
    code: 1,
    topic: Users,
    latest_only: false,
    command: UserCommand,
    event: UserEvent,
    refusal: UserRefusal,
});

#[cfg(test)]
mod tests {
    use cqrs_es::test::TestFramework;

    use super::*;

    fn ann() -> Registered {
        Registered {
            username: "ann".into(),
            email: "ann@example.org".into(),
            display_name: None,
            password_hash: "hash 1".into(),
        }
    }

    fn register(username_taken: bool, email_taken: bool) -> UserCommand {
        UserCommand::Register { account: ann(), username_taken, email_taken }
    }

    #[test]
    fn registers_once() {
        TestFramework::<User>::with(())
            .given_no_previous_events()
            .when(register(false, false))
            .then_expect_events(vec![ann().into()]);
        TestFramework::<User>::with(())
            .given(vec![ann().into()])
            .when(register(false, false))
            .then_expect_error(UserRefusal::Exists);
    }

    #[test]
    fn refuses_names_that_are_taken() {
        let none = || TestFramework::<User>::with(()).given_no_previous_events();
        none().when(register(true, true)).then_expect_error(UserRefusal::UsernameTaken);
        none().when(register(false, true)).then_expect_error(UserRefusal::EmailTaken);
    }

    #[test]
    fn a_profile_that_stays_the_same_makes_no_event() {
        let change = |name: &str| UserCommand::ChangeProfile { display_name: Some(name.into()) };
        let changed = ProfileChanged { display_name: Some("Ann".into()), avatar_file_id: None };
        TestFramework::<User>::with(())
            .given(vec![ann().into()])
            .when(change("Ann"))
            .then_expect_events(vec![changed.clone().into()]);
        TestFramework::<User>::with(())
            .given(vec![ann().into(), changed.into()])
            .when(change("Ann"))
            .then_expect_events(vec![]);
    }

    #[test]
    fn a_password_checked_against_an_old_hash_is_refused() {
        let change = |against: &str| UserCommand::ChangePassword {
            checked_against: against.into(),
            password_hash: "hash 2".into(),
        };
        let changed = PasswordChanged { password_hash: "hash 2".into() };
        TestFramework::<User>::with(())
            .given(vec![ann().into()])
            .when(change("hash 1"))
            .then_expect_events(vec![changed.clone().into()]);
        TestFramework::<User>::with(())
            .given(vec![ann().into(), changed.into()])
            .when(change("hash 1"))
            .then_expect_error(UserRefusal::PasswordMoved);
    }
    #[test]
    fn a_role_is_given_and_taken_once() {
        let set = |granted| UserCommand::SetRole { role: Role::Operator, granted };
        let (given, taken) = (RoleGranted { role: Role::Operator }, RoleRevoked { role: Role::Operator });
        let with = |mut events: Vec<UserEvent>| {
            events.insert(0, ann().into());
            TestFramework::<User>::with(()).given(events)
        };
        with(vec![]).when(set(true)).then_expect_events(vec![given.clone().into()]);
        with(vec![given.clone().into()]).when(set(true)).then_expect_events(vec![]);
        with(vec![given.clone().into()]).when(set(false)).then_expect_events(vec![taken.clone().into()]);
        with(vec![given.into(), taken.into()]).when(set(false)).then_expect_events(vec![]);
        TestFramework::<User>::with(())
            .given_no_previous_events()
            .when(set(true))
            .then_expect_error(UserRefusal::Unknown);
    }
}
