//! Whether a schema breaks those who live by an earlier one.
//!
//! A topic keeps what was written years ago, and its consumers were written against some version between then and now. So a
//! change has to be harmless in both directions: who knows the old schema reads new data, and who knows the new one reads
//! old data. One change is: **an object that takes other members gains one that need not be there.** All else breaks somebody:
//!
//! | change | whom it breaks |
//! | --- | --- |
//! | a member is removed, or another type, format or constant | who reads it |
//! | a new member is required, or an optional one becomes so | who checks old data by the new schema |
//! | a required member becomes optional | who counts on it |
//! | an enum gains a value | who has no case for it |
//! | an enum loses a value | who checks old data by the new schema |
//! | a bound, a pattern or any other keyword is put, changed or taken away | one of the two |
//! | an object that takes other members takes them no more, or by a schema | who checks old data |
//! | an object that does not take them gains one | who checks new data by the old schema |
//! | choices (`oneOf`, `anyOf`) are added, removed or moved | one of the two |
//! | `$id` changes, beyond its version; `$schema` changes | who looks it up; who reads it |
//!
//! Words (`title`, `description`, `examples`, …) may change: they are for people. What a keyword that is not known here
//! means cannot be told, so any change of it breaks.

mod resolve;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

use resolve::{Document, lists_of_schemas, maps_of_schemas, schemas};

/// What one schema says otherwise than another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where in the data: names of members, `*` for every item; empty for the whole.
    pub at: String,
    /// What became of it.
    pub change: Change,
}

/// A change of a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A member came that need not be there: the one change that nobody has to notice.
    Gained,
    /// A member came into an object that takes no other members.
    GainedWhereClosed,
    /// A member came that has to be there.
    GainedRequired,
    /// A member went.
    Removed,
    /// A member has to be there that need not have been.
    BecameRequired,
    /// A member need not be there that had to be.
    BecameOptional,
    /// Other types.
    Retyped,
    /// An enum has values that it did not have.
    EnumWidened,
    /// An enum lacks values that it had.
    EnumNarrowed,
    /// The format is another.
    Format,
    /// There are other choices.
    Choices,
    /// The document stands at another address.
    Moved,
    /// Any other keyword says something else.
    Keyword(String),
}

impl Change {
    /// Whether somebody may have to notice.
    pub fn breaks(&self) -> bool {
        *self != Self::Gained
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, change } = self;
        let at = if at.is_empty() { "/" } else { at };
        match change {
            Change::Gained => write!(f, "{at} is new, and optional"),
            Change::GainedWhereClosed => write!(f, "{at} is new where no other members are taken"),
            Change::GainedRequired => write!(f, "{at} is new, and required"),
            Change::Removed => write!(f, "{at} is removed"),
            Change::BecameRequired => write!(f, "{at} became required"),
            Change::BecameOptional => write!(f, "{at} became optional"),
            Change::Retyped => write!(f, "{at} has another type"),
            Change::EnumWidened => write!(f, "{at} has new values"),
            Change::EnumNarrowed => write!(f, "{at} lacks values that it had"),
            Change::Format => write!(f, "{at} has another format"),
            Change::Choices => write!(f, "{at} has other choices"),
            Change::Moved => write!(f, "{at} has another `$id`"),
            Change::Keyword(name) => write!(f, "{at} has another `{name}`"),
        }
    }
}

/// Everything that `new` says otherwise than `old`, apart from words.
pub fn differences(old: &Value, new: &Value) -> Vec<Difference> {
    let mut comparison = Comparison { old: Document(old), new: Document(new), within: Vec::new(), found: Vec::new() };
    comparison.schemas(old, new, "");
    comparison.found
}

/// Those of the differences that break somebody.
pub fn breaking(old: &Value, new: &Value) -> Vec<Difference> {
    differences(old, new).into_iter().filter(|difference| difference.change.breaks()).collect()
}

/// The schema without its words: what it asks of data, in an order that depends on nothing.
pub fn demands(schema: &Value) -> Value {
    let Value::Object(keywords) = schema else { return schema.clone() };
    let all = |value: &Value| value.as_object().map(|all| all.iter().map(|(k, v)| (k.clone(), demands(v))).collect());
    let each = |value: &Value| value.as_array().map(|list| list.iter().map(demands).collect());
    let mut names: Vec<_> = keywords.keys().filter(|name| !is_word(name)).collect();
    names.sort_unstable();
    let demanded = names.into_iter().map(|name| {
        let value = &keywords[name];
        let plain = match name.as_str() {
            "required" | "enum" | "type" => value.as_array().map(|list| {
                let mut list = list.clone();
                list.sort_by_key(Value::to_string);
                Value::Array(list)
            }),
            name if maps_of_schemas(name) => all(value).map(Value::Object),
            name if lists_of_schemas(name) => each(value).map(Value::Array),
            name if schemas(name) => Some(demands(value)),
            _ => None,
        };
        (name.clone(), plain.unwrap_or_else(|| value.clone()))
    });
    Value::Object(demanded.collect())
}

/// Keywords for people.
fn is_word(keyword: &str) -> bool {
    ["title", "description", "examples", "default", "deprecated", "readOnly", "writeOnly", "$comment"]
        .contains(&keyword)
}

struct Comparison<'a> {
    old: Document<'a>,
    new: Document<'a>,
    /// The references that were followed to where we are: a schema may contain itself.
    within: Vec<(String, String)>,
    found: Vec<Difference>,
}

impl Comparison<'_> {
    fn schemas(&mut self, old: &Value, new: &Value, at: &str) {
        let followed = resolve::target(old).zip(resolve::target(new));
        if let Some((old, new)) = followed {
            let pair = (old.to_owned(), new.to_owned());
            if self.within.contains(&pair) {
                return;
            }
            self.within.push(pair);
        }
        match (self.old.resolved(old), self.new.resolved(new)) {
            (Value::Object(old), Value::Object(new)) => self.objects(&old, &new, at),
            (old, new) if old == new => {}
            _ => self.add(at, Change::Retyped),
        }
        if followed.is_some() {
            self.within.pop();
        }
    }

    fn objects(&mut self, old: &Map<String, Value>, new: &Map<String, Value>, at: &str) {
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names {
            if is_word(name) {
                continue;
            }
            let (before, after) = (old.get(name), new.get(name));
            match name.as_str() {
                // Reached by references; with the members.
                "$defs" | "definitions" | "required" => {}
                "properties" => self.members(old, new, at),
                "type" => self.unless(types(before) == types(after), at, Change::Retyped),
                "format" => self.unless(before == after, at, Change::Format),
                "$id" => self.unless(address(before) == address(after), at, Change::Moved),
                "enum" => self.values(before, after, at),
                "items" | "additionalProperties" | "unevaluatedProperties" | "unevaluatedItems" => {
                    let anything = Value::Bool(true);
                    let (before, after) = (before.unwrap_or(&anything), after.unwrap_or(&anything));
                    if before.is_object() && after.is_object() {
                        self.schemas(before, after, &format!("{at}/*"));
                    } else {
                        self.unless(before == after, at, Change::Keyword(name.clone()));
                    }
                }
                "oneOf" | "anyOf" => self.choices(before, after, at),
                _ => self.unless(before == after, at, Change::Keyword(name.clone())),
            }
        }
        if !old.contains_key("properties") && !new.contains_key("properties") {
            self.members(old, new, at);
        }
    }

    fn members(&mut self, old: &Map<String, Value>, new: &Map<String, Value>, at: &str) {
        let (before, after) = (members(old), members(new));
        let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
        for name in names {
            let at = format!("{at}/{name}");
            match (before.get(name), after.get(name)) {
                (Some(before), Some(after)) => {
                    match (before.required, after.required) {
                        (false, true) => self.add(&at, Change::BecameRequired),
                        (true, false) => self.add(&at, Change::BecameOptional),
                        _ => {}
                    }
                    self.schemas(before.schema, after.schema, &at);
                }
                (Some(_), None) => self.add(&at, Change::Removed),
                (None, Some(after)) if after.required => self.add(&at, Change::GainedRequired),
                (None, Some(_)) if is_closed(old) => self.add(&at, Change::GainedWhereClosed),
                (None, _) => self.add(&at, Change::Gained),
            }
        }
    }

    fn values(&mut self, before: Option<&Value>, after: Option<&Value>, at: &str) {
        let (Some(Value::Array(before)), Some(Value::Array(after))) = (before, after) else {
            return self.add(at, Change::Keyword("enum".to_owned()));
        };
        self.unless(after.iter().all(|value| before.contains(value)), at, Change::EnumWidened);
        self.unless(before.iter().all(|value| after.contains(value)), at, Change::EnumNarrowed);
    }

    fn choices(&mut self, before: Option<&Value>, after: Option<&Value>, at: &str) {
        match (before, after) {
            (Some(Value::Array(before)), Some(Value::Array(after))) if before.len() == after.len() => {
                for (before, after) in before.iter().zip(after) {
                    self.schemas(before, after, at);
                }
            }
            _ => self.add(at, Change::Choices),
        }
    }

    fn unless(&mut self, same: bool, at: &str, change: Change) {
        if !same {
            self.add(at, change);
        }
    }

    fn add(&mut self, at: &str, change: Change) {
        self.found.push(Difference { at: at.to_owned(), change });
    }
}

/// A member as an object's schema has it.
struct Member<'a> {
    schema: &'a Value,
    required: bool,
}

/// The members that an object's schema names; one that it only requires may be anything.
fn members(object: &Map<String, Value>) -> BTreeMap<&str, Member<'_>> {
    let required = || object.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let described = object.get("properties").and_then(Value::as_object).into_iter().flatten();
    let mut members: BTreeMap<_, _> =
        described.map(|(name, schema)| (name.as_str(), Member { schema, required: false })).collect();
    for name in required() {
        members.entry(name).or_insert(Member { schema: &Value::Bool(true), required: true }).required = true;
    }
    members
}

/// Whether an object may refuse members that it does not name.
fn is_closed(object: &Map<String, Value>) -> bool {
    let takes_all = |name| object.get(name).is_none_or(|value| *value == Value::Bool(true));
    let bounds = ["patternProperties", "propertyNames", "maxProperties"];
    !takes_all("additionalProperties")
        || !takes_all("unevaluatedProperties")
        || bounds.iter().any(|name| object.contains_key(*name))
}

/// One type or several, in any order.
fn types(value: Option<&Value>) -> Option<BTreeSet<String>> {
    Some(match value? {
        Value::Array(several) => several.iter().map(Value::to_string).collect(),
        one => BTreeSet::from([one.to_string()]),
    })
}

/// Where a document stands, without its version.
fn address(id: Option<&Value>) -> Option<&str> {
    let id = id?.as_str()?;
    Some(id.rsplit_once('/').map_or(id, |(folder, _)| folder))
}
