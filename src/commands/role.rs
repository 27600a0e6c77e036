//! `parlance role`: gives users roles and takes them, by the log, beside a live server.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use domain::user;
use event_store::{EventStore, Log, Options};
use platform::config::{CommonFlags, Config, ServeFlags};
use sqlx::PgPool;

use crate::database::Database;

/// Arguments of `parlance role`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Give a user a role
    Grant(Whose),
    /// Take a role from a user
    Revoke(Whose),
    /// Name the users who have roles
    List {
        #[command(flatten)]
        common: CommonFlags,
    },
}

#[derive(Args)]
struct Whose {
    #[command(flatten)]
    common: CommonFlags,
    /// An id, a username or an e-mail address
    user: String,
    /// The role
    role: Role,
}

/// A role by its name.
#[derive(Clone, Copy, ValueEnum)]
enum Role {
    /// Reads the audit
    Operator,
}

impl From<Role> for user::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Operator => Self::Operator,
        }
    }
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let common = match &arguments.action {
        Action::Grant(whose) | Action::Revoke(whose) => &whose.common,
        Action::List { common } => common,
    };
    let config = Config::load(common, &ServeFlags::default())?;
    let database = Database::beside(&config).await?;
    let pool = database.pool("role", 2).await?;
    let done = match &arguments.action {
        Action::Grant(whose) => set(&pool, whose, true).await,
        Action::Revoke(whose) => set(&pool, whose, false).await,
        Action::List { .. } => list(&pool).await,
    };
    pool.close().await;
    database.stop().await;
    done.map(|()| ExitCode::SUCCESS)
}

async fn set(pool: &PgPool, whose: &Whose, granted: bool) -> anyhow::Result<()> {
    let log = Log::open(pool.clone()).await?;
    let Some(user_id) = command_api::find_user(&log, &whose.user).await? else {
        bail!("nobody is called {}", whose.user);
    };
    let options = Options { lanes: 1, ..Options::default() };
    let store = EventStore::open(pool.clone(), options).await?;
    let set = command_api::set_role(&store, user_id, whose.role.into(), granted).await;
    store.close().await;
    let changed = set.with_context(|| format!("the role of {} stays as it was", whose.user))?;
    match (granted, changed) {
        (true, true) => println!("{user_id} is an operator from now on"),
        (true, false) => println!("{user_id} was an operator already"),
        (false, true) => println!("{user_id} is no operator any more"),
        (false, false) => println!("{user_id} was no operator"),
    }
    Ok(())
}

async fn list(pool: &PgPool) -> anyhow::Result<()> {
    let log = Log::open(pool.clone()).await?;
    for user_id in command_api::users_with(&log, user::Role::Operator).await? {
        let username = log.load::<user::User>(user_id).await?.and_then(|(user, _)| user.account().cloned());
        println!("operator\t{user_id}\t{}", username.map(|account| account.username).unwrap_or_default());
    }
    Ok(())
}
