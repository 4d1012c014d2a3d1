//! Checks a configuration file key by key and reports every problem with its line.
//!
//! Each key is validated by itself on top of the defaults, with the code that reads settings for a start. A file that
//! passes this check therefore also passes a start, and each rule exists once.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytesize::ByteSize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{RawSettings, SettingsError, Variables, time};
use crate::balancer::settings::BalancerSettings;
use crate::file_server::settings::ServerSettings;
use crate::telemetry::chain;

/// A larger file is refused.
const LARGEST: u64 = 1 << 20;

/// The result of the check of one file.
#[derive(Debug, Default)]
pub struct FileCheck {
    /// The problems in the order of the lines.
    pub problems: Vec<FileProblem>,
    /// The valid keys, as the text of a configuration file.
    pub usable: String,
    /// The sections that have keys.
    pub sections: BTreeSet<String>,
}

/// A line with an error.
#[derive(Debug)]
pub struct FileProblem {
    /// The number of the line; the first is 1.
    pub line: usize,
    /// The error, and a correct value.
    pub reason: String,
}

/// Reads a configuration file once, so that it may be a pipe.
pub fn read(path: &Path) -> Result<String, SettingsError> {
    let text = || {
        let mut text = String::new();
        let read = File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
        if read as u64 > LARGEST {
            return Err(io::Error::other(format!("it is larger than {} MiB", LARGEST >> 20)));
        }
        Ok(text)
    };
    text().map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })
}

/// Validates each section with the rules of its program.
pub fn validate(raw: &RawSettings) -> Result<(), SettingsError> {
    BalancerSettings::try_from(raw.balancer.clone())?;
    ServerSettings::try_from(raw.server.clone())?;
    Ok(())
}

/// The kind of values that a key takes, derived from its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueKind {
    Integer,
    Boolean,
    Time,
    Size,
    Text,
}

impl ValueKind {
    fn of(default: &DeValue<'_>) -> Self {
        match default {
            DeValue::Integer(_) => Self::Integer,
            DeValue::Boolean(_) => Self::Boolean,
            // Modes such as "660" are text without a unit; times and sizes have a unit.
            DeValue::String(text) if !text.ends_with(|last: char| last.is_ascii_alphabetic()) => Self::Text,
            DeValue::String(text) if humantime::parse_duration(text).is_ok() => Self::Time,
            DeValue::String(text) if text.parse::<ByteSize>().is_ok() => Self::Size,
            _ => Self::Text,
        }
    }

    /// Checks text from any layer. The error states a correct value.
    pub(super) fn check_text(self, text: &str) -> Result<(), String> {
        match self {
            Self::Time => time::parse(text).map(drop),
            Self::Size => text.parse::<ByteSize>().map(drop).map_err(|_| A_SIZE.to_owned()),
            _ => Ok(()),
        }
    }
}

const A_SIZE: &str = "it must be a size, such as \"64MiB\" or \"500kB\"";

/// Checks that every value has the type of its key. The `config` crate would convert `true` to a number and truncate
/// `1.5`, because variables hold only text.
pub(super) fn check_kinds(text: &str) -> Result<(), SettingsError> {
    let (own, _) = DeTable::parse_recoverable(text);
    let known = known_keys();
    for (section, content) in own.get_ref() {
        let DeValue::Table(keys) = content.get_ref() else { continue };
        for (key, value) in keys {
            let name = format!("{}.{}", section.get_ref(), key.get_ref());
            let Some(kind) = known.iter().find(|known| known.name() == name).map(|known| known.kind) else {
                continue;
            };
            let written = text.get(value.span()).unwrap_or_default();
            let wanted = match (kind, value.get_ref()) {
                // The content of text is checked once all layers are read.
                (ValueKind::Time | ValueKind::Size | ValueKind::Text, DeValue::String(_))
                | (ValueKind::Integer | ValueKind::Size | ValueKind::Text, DeValue::Integer(_))
                | (ValueKind::Boolean, DeValue::Boolean(_)) => continue,
                (ValueKind::Time, _) => match kind.check_text(written) {
                    Ok(()) => continue,
                    Err(wanted) => wanted,
                },
                (ValueKind::Integer, _) => "it must be a whole number, such as 1".to_owned(),
                (ValueKind::Boolean, _) => "it must be true or false".to_owned(),
                (ValueKind::Size, _) => A_SIZE.to_owned(),
                (ValueKind::Text, _) => "it must be text in quotes".to_owned(),
            };
            return Err(SettingsError::value(name, written, wanted));
        }
    }
    Ok(())
}

/// Checks every line of a configuration file.
#[must_use]
pub fn check(text: &str) -> FileCheck {
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
                format!("[{name}]: unknown section; the sections are [balancer] and [server]"),
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
    match super::from_text(&line, Variables::Ignored, Vec::new()).and_then(|raw| validate(&raw)) {
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

/// A key of `config/default.toml`.
#[derive(Debug)]
pub(super) struct KnownKey {
    section: String,
    key: String,
    pub(super) kind: ValueKind,
}

impl KnownKey {
    /// Section and key, such as `balancer.port`.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }
}

/// Every key that can be set, in the order of `config/default.toml`.
pub(super) fn known_keys() -> Vec<KnownKey> {
    let (defaults, _) = DeTable::parse_recoverable(super::DEFAULTS);
    let sections = defaults.get_ref().iter().filter_map(|(section, content)| match content.get_ref() {
        DeValue::Table(keys) => Some((section.get_ref(), keys)),
        _ => None,
    });
    sections
        .flat_map(|(section, keys)| {
            keys.iter().map(|(key, default)| KnownKey {
                section: section.to_string(),
                key: key.get_ref().to_string(),
                kind: ValueKind::of(default.get_ref()),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;

    fn problems(text: &str) -> Vec<String> {
        check(text).problems.iter().map(|problem| format!("{}: {}", problem.line, problem.reason)).collect()
    }

    #[test]
    fn the_defaults_have_no_problem_and_every_key_is_usable() {
        let found = check(settings::DEFAULTS);
        assert_eq!(problems(settings::DEFAULTS), Vec::<String>::new());
        assert_eq!(found.usable.lines().count(), known_keys().len());
    }

    #[test]
    fn every_problem_is_found_with_its_line() {
        let found = problems(
            "port = 1\n[balancer]\nprot = 1\nport = \"x\"\nfall = 7\n\n[server]\nport = 70000\n[sever]\nport = 1\n",
        );
        let [stray, unknown, text, large, section] = found.as_slice() else { panic!("{found:?}") };
        assert!(stray.starts_with("1: port: every key belongs to a section"), "{stray}");
        assert!(unknown.starts_with("3: balancer.prot: unknown key"), "{unknown}");
        assert!(text.starts_with("4: ") && text.contains("balancer.port"), "{text}");
        assert!(large.starts_with("8: ") && large.contains("server.port"), "{large}");
        assert!(section.starts_with("9: [sever]: unknown section"), "{section}");
    }

    #[test]
    fn an_invalid_value_is_reported_with_its_line() {
        let found = problems("[balancer]\nfall = 0\nstatus = 300\nprobe_interval = \"soon\"\n");
        let [fall, status, interval] = found.as_slice() else { panic!("{found:?}") };
        assert!(fall.starts_with("2: balancer.fall = 0: it must be at least 1"), "{fall}");
        assert!(status.starts_with("3: balancer.status = 300: "), "{status}");
        assert!(
            interval.starts_with("4: balancer.probe_interval = \"soon\": it must be a time"),
            "{interval}"
        );
    }

    #[test]
    fn the_error_for_a_time_without_a_unit_contains_the_correct_text() {
        assert_eq!(
            problems("[balancer]\nprobe_interval = 2\nslow_start = '7'\nprobe_timeout = 0.5\nfall = \"2\"\n"),
            [
                "2: balancer.probe_interval = 2: a time needs a unit; write \"2s\"",
                "3: balancer.slow_start = \"7\": a time needs a unit; write \"7s\"",
                "4: balancer.probe_timeout = 0.5: a time needs a unit; write \"500ms\"",
                "5: balancer.fall = \"2\": it must be a whole number, such as 1",
            ]
        );
        for key in known_keys() {
            let (text, wanted) = match key.kind {
                ValueKind::Time => ("7", "write \"7s\""),
                ValueKind::Size => ("\"many\"", "or \"500kB\""),
                _ => continue,
            };
            let found = problems(&format!("[{}]\n\n{} = {text}", key.section, key.key));
            let start = format!("3: {} = {text}: ", key.name());
            assert!(found[0].starts_with(&start) && found[0].ends_with(wanted), "{found:?}");
        }
        let count = |kind| known_keys().iter().filter(|key| key.kind == kind).count();
        assert!(count(ValueKind::Time) >= 9 && count(ValueKind::Size) >= 4);
    }

    #[test]
    fn a_value_of_another_kind_is_a_problem_even_if_it_could_be_converted() {
        let found = problems(
            "[balancer]\nport = true\nworkers = 1.5\nservers = 5.0\nsecond_chance = 1\nhost = ['::']\n\
             unix_socket_mode = 660\n",
        );
        assert_eq!(
            found,
            [
                "2: balancer.port = true: it must be a whole number, such as 1",
                "3: balancer.workers = 1.5: it must be a whole number, such as 1",
                "4: balancer.servers = 5.0: it must be text in quotes",
                "5: balancer.second_chance = 1: it must be true or false",
                "6: balancer.host = ['::']: it must be text in quotes",
            ]
        );
    }

    #[test]
    fn invalid_toml_is_reported_with_its_line() {
        let found = problems("[balancer]\nport = 1\nfall == 2\n");
        assert!(found.iter().any(|problem| problem.starts_with("3: ")), "{found:?}");
    }

    #[test]
    fn valid_keys_of_a_file_with_errors_stay_usable() {
        let found = check("[balancer]\nservers = 'own list.txt' # mine\nport = -1\n");
        assert_eq!(found.usable, "balancer.servers = 'own list.txt'\n");
    }
}
