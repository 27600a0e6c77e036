//! The roles that a process may have.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A part of the server that can run in a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Takes commands over REST, and from gateways.
    CommandApi,
    /// Shows, and streams to devices.
    QueryApi,
    /// Fills the read models and tells the gateways.
    Projectors,
    /// Publishes the log.
    Relay,
}

impl Role {
    const ALL: [Self; 4] = [Self::CommandApi, Self::QueryApi, Self::Projectors, Self::Relay];

    fn name(self) -> &'static str {
        match self {
            Self::CommandApi => "command-api",
            Self::QueryApi => "query-api",
            Self::Projectors => "projectors",
            Self::Relay => "relay",
        }
    }
}

/// Those of one process, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Roles(BTreeSet<Role>);

impl Roles {
    /// All of them.
    pub(crate) fn all() -> Self {
        Self(Role::ALL.into_iter().collect())
    }

    /// Whether this is one of them.
    pub(crate) fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// Whether no other process is needed.
    pub(crate) fn are_all(&self) -> bool {
        self.0.len() == Role::ALL.len()
    }

    /// Whether events are published or read.
    pub(crate) fn want_bus(&self) -> bool {
        self.has(Role::Relay) || self.has(Role::Projectors)
    }
}

impl FromStr for Roles {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let role = |name: &str| Role::ALL.into_iter().find(|role| role.name() == name.trim());
        let roles: Option<BTreeSet<Role>> = text.split(',').map(role).collect();
        roles.map(Self).ok_or_else(|| format!("roles are {}, separated by commas", Self::all()))
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|role| role.name()).collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_named_in_any_order_and_nothing_else_is_one() {
        let some: Roles = "relay, command-api,relay".parse().unwrap();
        assert_eq!(some.to_string(), "command-api,relay");
        assert!(some.has(Role::Relay) && !some.has(Role::QueryApi) && !some.are_all());
        assert!("relay,projectors,query-api,command-api".parse::<Roles>().unwrap().are_all());
        for nonsense in ["", "gateway", "relay,", "RELAY"] {
            assert!(nonsense.parse::<Roles>().unwrap_err().contains("command-api,query-api"), "{nonsense}");
        }
    }
}
