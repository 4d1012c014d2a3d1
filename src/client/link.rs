//! `Link` headers (RFC 8288) and the mirrors in them (RFC 6249).

use url::Url;

use super::address::without_credentials;

/// The media type of a Metalink.
pub(super) const METALINK_TYPE: &str = "application/metalink4+xml";

/// Maximum number of mirrors of one answer.
pub(super) const MAX_MIRRORS: usize = 64;

/// A mirror of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mirror {
    /// The address.
    pub url: Url,
    /// The priority, 1 to 999 999; lower is better. `u32::MAX` if the link has none.
    pub priority: u32,
}

/// The distinct `rel=duplicate` links in the values of an answer's `Link` headers, best first.
///
/// Relative addresses are resolved against `base`. Malformed links and links to other schemes than http and
/// https are skipped; if `base` is https, only https is accepted.
pub(super) fn mirrors<'a>(base: &Url, values: impl Iterator<Item = &'a str>) -> Vec<Mirror> {
    let mut mirrors: Vec<Mirror> = Vec::new();
    for value in values {
        for link in links(value) {
            let Some(mirror) = related(base, link, "duplicate") else { continue };
            if !mirrors.iter().any(|known| known.url == mirror.url) {
                mirrors.push(mirror);
            }
        }
    }
    mirrors.sort_by_key(|mirror| mirror.priority);
    mirrors.truncate(MAX_MIRRORS);
    mirrors
}

/// The first Metalink in the values of an answer's `Link` headers that describes the file.
pub(super) fn description<'a>(base: &Url, mut values: impl Iterator<Item = &'a str>) -> Option<Url> {
    values.find_map(|value| {
        let described = links(value).into_iter().filter(|link| link.contains(METALINK_TYPE));
        described.filter_map(|link| related(base, link, "describedby")).map(|link| link.url).next()
    })
}

/// The target of a link with this relation.
fn related(base: &Url, link: &str, relation: &str) -> Option<Mirror> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let mut is_related = false;
    let mut priority = u32::MAX;
    for parameter in split_outside_quotes(parameters, ';') {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "rel" => {
                is_related |= value.split_ascii_whitespace().any(|word| word.eq_ignore_ascii_case(relation));
            }
            "pri" => priority = value.parse().unwrap_or(u32::MAX),
            _ => {}
        }
    }
    let url = without_credentials(base.join(target).ok().filter(|_| is_related)?);
    match (base.scheme(), url.scheme()) {
        (_, "https") | ("http", "http") => Some(Mirror { url, priority }),
        _ => None,
    }
}

/// The links in one header value: separated by commas outside `<>` and quotes.
fn links(value: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut in_target, mut in_quotes) = (0, false, false);
    for (at, character) in value.char_indices() {
        match character {
            '<' if !in_quotes => in_target = true,
            '>' if !in_quotes => in_target = false,
            '"' if !in_target => in_quotes = !in_quotes,
            ',' if !in_target && !in_quotes => {
                parts.extend(value.get(start..at));
                start = at.saturating_add(1);
            }
            _ => {}
        }
    }
    parts.extend(value.get(start..));
    parts
}

fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut in_quotes = false;
    text.split(move |character| {
        in_quotes ^= character == '"';
        character == separator && !in_quotes
    })
}

#[cfg(test)]
mod tests;
