//! Checks a configuration file key by key and reports every problem with its line.
//!
//! Each key is validated by itself on top of the defaults, with the code that reads settings for a start. A file that
//! passes this check therefore also passes a start, and each rule exists once.

use std::borrow::Cow;
use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{from_text, validate};
use crate::settings::Variables;
use crate::settings::keys::{KnownKey, known_keys};
use crate::telemetry::chain;

/// The result of the check of one file.
#[derive(Debug, Default)]
pub(crate) struct FileCheck {
    /// The problems in the order of the lines.
    pub problems: Vec<FileProblem>,
    /// The valid keys, as the text of a configuration file.
    pub usable: String,
    /// The sections that have keys.
    pub sections: BTreeSet<String>,
}

/// A line with an error.
#[derive(Debug)]
pub(crate) struct FileProblem {
    /// The number of the line; the first is 1.
    pub line: usize,
    /// The error, and a correct value.
    pub reason: String,
}

/// Checks every line of a configuration file.
pub(crate) fn check(text: &str) -> FileCheck {
    let mut found = FileCheck::default();
    let known = known_keys();
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let offset = error.span().map_or(0, |span| span.start);
        found.report(text, offset, error.message().to_owned());
    }
    for (section, content) in table.get_ref() {
        let name: &str = section.get_ref();
        let DeValue::Table(keys) = content.get_ref() else {
            found.report(text, section.span().start, format!("{name}: every key belongs to a section"));
            continue;
        };
        if !known.iter().any(|known| known.section == name) {
            found.report(
                text,
                section.span().start,
                format!("[{name}]: unknown section; the sections are [balancer], [server] and [fleet]"),
            );
            continue;
        }
        for (key, value) in keys {
            check_key(text, &known, name, key, value, &mut found);
        }
    }
    found.problems.sort_by_key(|problem| problem.line);
    found
}

fn check_key(
    text: &str,
    known: &[KnownKey],
    section: &str,
    key: &Spanned<Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
    found: &mut FileCheck,
) {
    let name: &str = key.get_ref();
    found.sections.insert(section.to_owned());
    let at = key.span().start;
    if !known.iter().any(|own| own.section == section && own.key == name) {
        let reason = format!("{section}.{name}: unknown key; docs/configuration.md lists all keys");
        return found.report(text, at, reason);
    }
    let Some(written) = text.get(value.span()) else { return };
    let line = format!("{section}.{name} = {written}\n");
    match from_text(&line, Variables::Ignored, Vec::new()).and_then(|raw| validate(&raw)) {
        Ok(()) => found.usable.push_str(&line),
        Err(error) => found.report(text, at, chain(&error)),
    }
}

impl FileCheck {
    fn report(&mut self, text: &str, offset: usize, reason: String) {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        self.problems.push(FileProblem { line, reason });
    }
}

#[cfg(test)]
mod tests;
