//! What the pages are made of: their look, and text that cannot become markup.

use std::fmt::Write as _;

use serde_json::{Map, Value};

const STYLE: &str = r"
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; }
h3 { margin: 2.5rem 0 0; padding-top: 1rem; border-top: 1px solid var(--line); }
code, pre { font: 0.875em/1.5 ui-monospace, monospace; }
h3 code { font-size: 1em; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; }
summary b { display: inline-block; min-width: 4.5em; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; }
caption { text-align: left; padding: .25rem 0; }
td, th { border-top: 1px solid var(--line); padding: .25rem .5rem; text-align: left; vertical-align: top; }
td:first-child, th:first-child { padding-left: 0; white-space: nowrap; }
pre { background: var(--soft); border-radius: 6px; padding: .6rem; overflow-x: auto; }
nav ul { columns: 16rem; padding-left: 1.2rem; }
.scroll { overflow-x: auto; }
";

/// The beginning of a page.
pub(super) fn head(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n",
        escape(title)
    )
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn map(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// A text of the document, fit for HTML; code in backticks becomes that.
pub(super) fn text(value: &Value) -> String {
    let escaped = escape(value.as_str().unwrap_or_default());
    let mut html = String::with_capacity(escaped.len() + 32);
    let mut parts = escaped.split('`').peekable();
    let mut inside = false;
    while let Some(part) = parts.next() {
        html.push_str(part);
        if parts.peek().is_some() {
            html.push_str(if inside { "</code>" } else { "<code>" });
            inside = !inside;
        }
    }
    html
}

pub(super) fn paragraphs(value: &Value) -> String {
    let all = value.as_str().unwrap_or_default();
    all.split("\n\n").filter(|one| !one.is_empty()).fold(String::new(), |mut html, one| {
        let _ = writeln!(html, "<p>{}</p>", text(&one.into()));
        html
    })
}

pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// What of a page a browser would fetch or run, if there is any.
#[cfg(test)]
pub(super) fn fetched(html: &str) -> Option<&'static str> {
    ["<script", "src=", "<link", "@import", "url(", "<img", "<iframe"].into_iter().find(|one| html.contains(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(text(&"`a<b>` & \"c\" `".into()), "<code>a&lt;b&gt;</code> &amp; &quot;c&quot; <code>");
    }
}
