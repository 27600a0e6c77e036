//! What the text of shipped code does not say: a compiler sees no SQL, and no clock in a pure crate.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::workspace::root;

/// Words that stand only in certain places. SQL is compared as it is written here: keywords in capitals.
struct Rule {
    words: &'static [&'static str],
    /// Where the rule holds; empty for everywhere.
    within: &'static [&'static str],
    /// Where it does not.
    except: &'static [&'static str],
    reason: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        words: &["log.append(", "INTO log.", "UPDATE log.", "DELETE FROM log.", "TRUNCATE log."],
        within: &[],
        except: &["event-store/"],
        reason: "only the event store writes the log",
    },
    Rule {
        words: &["FROM log.", "JOIN log."],
        within: &[],
        except: &["event-store/"],
        reason: "only the event store reads the log; others ask it",
    },
    Rule {
        words: &["INTO read.", "UPDATE read.", "DELETE FROM read.", "TRUNCATE read."],
        within: &[],
        except: &["projectors/"],
        reason: "only projections write read models",
    },
    Rule {
        words: &["FROM read.", "JOIN read."],
        within: &["command-api/", "event-store/", "relay/"],
        except: &[],
        reason: "a command decides by the log, never by a read model that may lag",
    },
    Rule {
        words: &["audit_heads"],
        within: &[],
        except: &["notary/", "migrations/"],
        reason: "only the notary keeps what was signed",
    },
    Rule {
        words: &[
            "INTO state.deliveries",
            "UPDATE state.deliveries",
            "INTO state.notifiable_messages",
            "INTO state.notification_marks",
            "UPDATE state.notification_marks",
            "INTO state.webhooks",
        ],
        within: &[],
        except: &["projectors/src/notifications/"],
        reason: "only the notifications consumer says what is sent, so that nothing is sent twice",
    },
    Rule {
        words: &["bus.publish(", "Bus::publish(", "bus.republish(", "Bus::republish("],
        within: &[],
        except: &["platform/src/bus/", "relay/"],
        reason: "only the relay publishes to the bus",
    },
    Rule {
        words: &["INTO state.replays", "UPDATE state.replays", "DELETE FROM state.replays"],
        within: &[],
        except: &["relay/"],
        reason: "records are published again by asking the relay",
    },
    Rule {
        words: &["opentelemetry"],
        within: &[],
        except: &["platform/src/traces/", "testkit/"],
        reason: "only `platform::traces` makes spans: one place says what they carry, and what one costs that nobody wants",
    },
    Rule {
        words: &[
            "SystemTime::now",
            "Instant::now",
            "now_utc(",
            "now_v7(",
            "new_v4(",
            "rand::",
            "std::env",
            "std::fs",
            "std::net",
            "std::process",
            "std::thread",
            "tokio::",
        ],
        within: &["domain/"],
        except: &[],
        reason: "a decision does no I/O; times and ids come in with the command",
    },
];

/// Lines of shipped Rust code that break a rule, and files that do not say what they are for.
pub(super) fn breaches() -> Result<Vec<String>> {
    let mut breaches = Vec::new();
    let mut files = Vec::new();
    for path in sources(root())? {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        files.push((path, text));
    }
    let tests: Vec<_> = files.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    for (path, text) in files {
        if tests.iter().any(|module| path.starts_with(module) || path.with_extension("") == *module) {
            continue;
        }
        let name = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        if !text.trim_start().starts_with("//!") {
            breaches.push(format!("{name}:1: a file opens with a `//!` line that says what it is for"));
        }
        breaches.extend(breaches_in(&name, &text));
    }
    Ok(breaches)
}

fn breaches_in(name: &str, text: &str) -> Vec<String> {
    // The rules name the words that they forbid.
    if name.starts_with("xtask/") || is_test(name) {
        return Vec::new();
    }
    let is_under = |folders: &[&str]| folders.iter().any(|folder| name.starts_with(folder));
    let rules: Vec<_> = RULES
        .iter()
        .filter(|rule| (rule.within.is_empty() || is_under(rule.within)) && !is_under(rule.except))
        .collect();
    let shipped = text.split_once("\n#[cfg(test)]\nmod tests {").map_or(text, |(shipped, _)| shipped);
    shipped
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .flat_map(|(index, line)| {
            let rules = rules.iter().filter(move |rule| rule.words.iter().any(|word| line.contains(word)));
            rules.map(move |rule| format!("{name}:{}: {}", index + 1, rule.reason))
        })
        .collect()
}

/// The modules that a file declares for its tests alone, as paths without an ending.
fn test_modules(path: &Path, text: &str) -> Vec<PathBuf> {
    let is_root = path.file_stem().is_some_and(|stem| ["lib", "main", "mod"].iter().any(|root| stem == *root));
    let folder = if is_root { path.parent().unwrap_or(path).to_owned() } else { path.with_extension("") };
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    lines
        .windows(2)
        .filter(|pair| pair[0] == "#[cfg(test)]")
        .filter_map(|pair| pair[1].strip_suffix(';')?.split_once("mod ").map(|(_, name)| folder.join(name)))
        .collect()
}

/// Whole files of tests, and what only tests use.
fn is_test(name: &str) -> bool {
    let path = Path::new(name);
    ["testkit/", "bench/"].iter().any(|folder| name.starts_with(folder))
        || path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "examples")
        || path.file_name().is_some_and(|file| file == "tests.rs")
}

/// All Rust files of the workspace.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name();
        let hidden = name.to_string_lossy().starts_with('.');
        if entry.file_type()?.is_dir() {
            if !hidden && name != "target" && name != "data" && name != "node_modules" {
                found.extend(sources(&path)?);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_event_store_writes_the_log() {
        let text = "let sql = \"SELECT log.append($1)\";\n";
        assert_eq!(breaches_in("event-store/src/append.rs", text), [""; 0]);
        assert_eq!(breaches_in("relay/src/lib.rs", text), ["relay/src/lib.rs:1: only the event store writes the log"]);
    }

    #[test]
    fn a_module_of_tests_is_known_by_its_declaration() {
        let text = "mod shipped;\n#[cfg(test)]\npub(crate) mod testing;\n";
        assert_eq!(test_modules(Path::new("a/src/lib.rs"), text), [Path::new("a/src/testing")]);
        assert_eq!(test_modules(Path::new("a/src/one.rs"), text), [Path::new("a/src/one/testing")]);
    }

    #[test]
    fn comments_and_tests_may_say_anything() {
        let text = "/// Not `Instant::now`.\nfn pure() {}\n#[cfg(test)]\nmod tests { fn f() { Instant::now(); } }\n";
        assert_eq!(breaches_in("domain/src/user/mod.rs", text), [""; 0]);
        assert_eq!(breaches_in("domain/src/user/tests.rs", "Instant::now()"), [""; 0]);
        assert_eq!(breaches_in("domain/src/user/mod.rs", "Instant::now()").len(), 1);
    }
}
