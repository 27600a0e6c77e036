//! The event topics as a page: `/docs/events`, made of the catalogue and its schemas.

mod fields;
mod guide;

use std::fmt::Write as _;

use schemas::catalogue::{EVENT_TYPES, EventType};
use schemas::compatibility::differences;
use schemas::{Topic, asyncapi};

use super::html::{escape, head, text};

/// Renders the contract.
pub(super) fn render() -> String {
    let mut html = head("Parlance: events");
    html.push_str("<h1>Events</h1>\n");
    html.push_str(guide::INTRODUCTION);
    contents(&mut html);
    html.push_str(guide::CONSUMING);
    headers(&mut html);
    html.push_str("<h2 id=\"topics\">Topics</h2>\n");
    for topic in Topic::ALL {
        render_topic(&mut html, topic);
    }
    for topic in Topic::ALL {
        // Writing to a string never fails.
        let _ = writeln!(html, "<h2>Types in <code>{}</code></h2>", topic.name());
        for kind in of(topic) {
            render_type(&mut html, kind);
        }
    }
    html.push_str("</html>\n");
    html
}

fn of(topic: Topic) -> impl Iterator<Item = &'static EventType> {
    EVENT_TYPES.iter().copied().filter(move |kind| kind.topic == topic)
}

fn link(kind: &EventType) -> String {
    format!("<a href=\"#{0}\"><code>{0}</code></a>", kind.name)
}

fn contents(html: &mut String) {
    html.push_str("<nav><ul>\n<li><a href=\"#consuming\">How to consume</a>\n<li><a href=\"#headers\">Headers</a>\n");
    html.push_str("<li><a href=\"#topics\">Topics</a>\n");
    for kind in EVENT_TYPES {
        let _ = writeln!(html, "<li>{}", link(kind));
    }
    html.push_str("</ul></nav>\n");
}

/// The headers are the same for all types, but for what names the type.
fn headers(html: &mut String) {
    html.push_str("<h2 id=\"headers\">Headers</h2>\n<p>On every record, unless it says optional; all are text.</p>\n");
    let Some(any) = EVENT_TYPES.first() else { return };
    let mut headers = asyncapi::headers(any);
    let said = [
        ("ce_type", "The type."),
        ("ce_dataschema", "Where the schema is served that the data were written by."),
        ("ce_subject", "The ordering key."),
        ("ce_partitionkey", "The ordering key."),
    ];
    for (name, meaning) in said {
        headers["properties"][name] = serde_json::json!({ "type": "string", "description": meaning });
    }
    fields::table(html, "", &headers, "header");
}

fn render_topic(html: &mut String, topic: Topic) {
    let types: Vec<_> = of(topic).map(link).collect();
    let _ = write!(
        html,
        "<h3 id=\"{0}\"><code>{0}</code></h3>\n<p>{1}</p>\n<div class=\"scroll\"><table>\n\
         <tr><th>setting<th>value<th>reason\n\
         <tr><td>key<td><code>{2}</code><td>all that happens under a key is in one partition, in order\n\
         <tr><td>partitions<td>{3}, unless chosen otherwise<td>{4}\n",
        topic.name(),
        text(&topic.summary().into()),
        topic.key(),
        asyncapi::USUAL_PARTITIONS,
        text(&Topic::PARTITIONS_REASON.into()),
    );
    for setting in topic.settings() {
        let (name, value) = (escape(setting.name), escape(setting.value));
        let _ =
            writeln!(html, "<tr><td><code>{name}</code><td><code>{value}</code><td>{}", text(&setting.reason.into()));
    }
    let _ = writeln!(html, "</table></div>\n<p>Types: {}.</p>", types.join(", "));
}

fn render_type(html: &mut String, kind: &EventType) {
    let newest = kind.version();
    let schema = kind.schema(newest);
    let numbered = if kind.numbered {
        " Numbered in its conversation: devices get it too, as a frame <code>event</code> of the WebSocket."
    } else {
        ""
    };
    let _ = writeln!(
        html,
        "<h3 id=\"{0}\"><code>{0}</code></h3>\n<p>{1}{numbered}</p>\n<p>Version {newest}: {2}</p>",
        kind.name,
        text(&kind.summary.into()),
        schema_link(kind, newest),
    );
    fields::table(html, kind.name, &schema, "member of <code>data</code>");
    // As it is written: the envelope first, then what happened.
    let example = escape(kind.example.trim_end());
    let _ = writeln!(html, "<details><summary>An example</summary>\n<pre>{example}</pre></details>");
    for version in kind.versions().rev().filter(|version| *version < newest) {
        let _ = writeln!(
            html,
            "<details><summary>Version {version}</summary>\n<p>{}. Version {} has beside it:</p>\n<ul>",
            schema_link(kind, version),
            version + 1,
        );
        for difference in differences(&kind.schema(version), &kind.schema(version + 1)) {
            let _ = writeln!(html, "<li><code>{}</code>", escape(&difference.at));
        }
        html.push_str("</ul>\n");
        fields::table(html, &format!("{}-{version}", kind.name), &kind.schema(version), "member of <code>data</code>");
        html.push_str("</details>\n");
    }
}

fn schema_link(kind: &EventType, version: u16) -> String {
    format!("<a href=\"{0}\"><code>{0}</code></a>", kind.path(version))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use platform::http::surface;
    use serde_json::Value;

    use super::super::html::fetched;
    use super::*;

    /// The values of an attribute.
    fn values<'a>(html: &'a str, attribute: &str) -> Vec<&'a str> {
        html.split(&format!("{attribute}=\"")).skip(1).filter_map(|rest| rest.split('"').next()).collect()
    }

    #[test]
    fn every_type_version_member_header_and_topic_is_shown() {
        let html = render();
        for kind in EVENT_TYPES {
            assert!(html.contains(&format!("<h3 id=\"{}\">", kind.name)), "{}", kind.name);
            assert!(html.contains(&text(&kind.summary.into())), "{}", kind.name);
            let start = html.find(&format!("<h3 id=\"{}\">", kind.name)).unwrap();
            let own = &html[start..];
            let own = &own[..own[4..].find("<h3 id=").map_or(own.len(), |end| end + 4)];
            for version in kind.versions() {
                assert!(own.contains(&format!("href=\"{}\"", kind.path(version))), "{} {version}", kind.name);
                for (name, member) in kind.schema(version)["properties"].as_object().unwrap() {
                    assert!(own.contains(&format!("<td><code>{name}</code>")), "{} {name}", kind.name);
                    assert!(own.contains(&text(&member["description"])), "{} {name}", kind.name);
                }
            }
            let example: Value = serde_json::from_str(kind.example).unwrap();
            assert!(own.contains(example["headers"]["ce_id"].as_str().unwrap()), "{} has its example", kind.name);
            for name in asyncapi::headers(kind)["properties"].as_object().unwrap().keys() {
                assert!(html.contains(&format!("<td><code>{name}</code>")), "{name}");
            }
        }
        for topic in Topic::ALL {
            assert!(html.contains(&format!("<h3 id=\"{}\">", topic.name())));
            for setting in topic.settings() {
                assert!(html.contains(&text(&setting.reason.into())), "{}", setting.name);
            }
        }
    }

    #[test]
    fn links_lead_somewhere_and_nothing_is_fetched() {
        let html = render();
        let ids = values(&html, " id");
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "ids are unique");
        for target in values(&html, " href") {
            if let Some(id) = target.strip_prefix('#') {
                assert!(ids.contains(&id), "{target}");
                continue;
            }
            assert!(surface::find(target).is_some_and(|entry| entry.is_open("GET")), "{target}");
            if let Some((name, version)) = target.strip_prefix("/schemas/").and_then(|rest| rest.split_once('/')) {
                let version = version.strip_suffix(".json").unwrap();
                assert!(schemas::catalogue::schema_document(name, version).is_some(), "{target}");
            }
        }
        assert_eq!(fetched(&html), None);
    }

    #[test]
    fn every_element_that_is_opened_is_closed() {
        let html = render();
        for element in ["table", "details", "div", "pre", "ul", "ol", "nav", "code", "a", "p", "h2", "h3"] {
            let (opened, closed) = (format!("<{element}"), format!("</{element}>"));
            let opened =
                html.match_indices(&opened).filter(|(at, found)| html[at + found.len()..].starts_with([' ', '>']));
            assert_eq!(opened.count(), html.matches(&closed).count(), "{element}");
        }
    }
}
