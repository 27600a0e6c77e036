//! The rules of the architecture that are absences: what a crate does not depend on, what its text does not say.

mod edges;
mod sources;

use anyhow::{Result, bail};

/// Checks everything and prints each breach with the reason of its rule.
pub(crate) fn run() -> Result<()> {
    let mut breaches = edges::breaches()?;
    breaches.extend(sources::breaches()?);
    for breach in &breaches {
        eprintln!("{breach}");
    }
    match breaches.len() {
        0 => Ok(()),
        1 => bail!("1 rule of the architecture is broken"),
        count => bail!("{count} rules of the architecture are broken"),
    }
}
