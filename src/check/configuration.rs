//! A configuration file, key by key: every problem with its line, not the first one alone.
//!
//! Each key is tried by itself on top of the defaults, with the very code that reads settings for a start. So what
//! passes here is what starts, and no rule is written twice.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::balancer::settings::BalancerSettings;
use crate::file_server::settings::ServerSettings;
use crate::settings::{self, RawSettings, SettingsError};
use crate::telemetry::chain;

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In the order of the lines.
    pub(super) problems: Vec<Problem>,
    /// The keys that are right, as a file of their own.
    pub(super) usable: String,
}

/// A line that is wrong.
#[derive(Debug)]
pub(super) struct Problem {
    /// The first is 1.
    pub(super) line: usize,
    /// What is wrong, and what would be right.
    pub(super) reason: String,
}

/// Makes of each section what its program would run on.
pub(super) fn validate(raw: &RawSettings) -> Result<(), SettingsError> {
    BalancerSettings::try_from(raw.balancer.clone())?;
    ServerSettings::try_from(raw.server.clone())?;
    Ok(())
}

/// Looks at every line of a configuration file.
pub(super) fn check(text: &str) -> Found {
    let mut found = Found::default();
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
        if !known.iter().any(|(known, _)| known == name) {
            found.report(text, section.span().start, format!("[{name}]: there is no such section"));
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
    known: &[(String, String)],
    section: &str,
    key: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
    found: &mut Found,
) {
    let name: &str = key.get_ref();
    let at = key.span().start;
    if !known.iter().any(|own| own.0 == section && own.1 == name) {
        let reason = format!("{section}.{name}: there is no such key; docs/configuration.md lists them all");
        return found.report(text, at, reason);
    }
    let Some(written) = text.get(value.span()) else { return };
    let line = format!("{section}.{name} = {written}\n");
    match settings::from_text(&line, Vec::new()).and_then(|raw| validate(&raw)) {
        Ok(()) => found.usable.push_str(&line),
        Err(error) => found.report(text, at, chain(&error)),
    }
}

impl Found {
    fn report(&mut self, text: &str, offset: usize, reason: String) {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        self.problems.push(Problem { line, reason });
    }
}

/// Section and key of everything that can be set, in the order of `config/default.toml`.
fn known_keys() -> Vec<(String, String)> {
    let (defaults, _) = DeTable::parse_recoverable(settings::DEFAULTS);
    let sections = defaults.get_ref().iter().filter_map(|(section, content)| match content.get_ref() {
        DeValue::Table(keys) => Some((section.get_ref(), keys)),
        _ => None,
    });
    sections
        .flat_map(|(section, keys)| keys.keys().map(|key| (section.to_string(), key.get_ref().to_string())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(unknown.starts_with("3: balancer.prot: there is no such key"), "{unknown}");
        assert!(text.starts_with("4: ") && text.contains("balancer.port"), "{text}");
        assert!(large.starts_with("8: ") && large.contains("server.port"), "{large}");
        assert!(section.starts_with("9: [sever]: there is no such section"), "{section}");
    }

    #[test]
    fn a_value_that_makes_no_sense_is_named_by_its_line() {
        let found = problems("[balancer]\nfall = 0\nstatus = 300\nprobe_interval = \"soon\"\n");
        let [fall, status, interval] = found.as_slice() else { panic!("{found:?}") };
        assert!(fall.starts_with("2: balancer.fall = 0: it must be at least 1"), "{fall}");
        assert!(status.starts_with("3: balancer.status = 300: "), "{status}");
        assert!(interval.starts_with("4: ") && interval.contains("probe_interval"), "{interval}");
    }

    #[test]
    fn what_is_no_toml_is_named_by_its_line() {
        let found = problems("[balancer]\nport = 1\nfall == 2\n");
        assert!(found.iter().any(|problem| problem.starts_with("3: ")), "{found:?}");
    }

    #[test]
    fn right_keys_beside_wrong_ones_stay_usable() {
        let found = check("[balancer]\nservers = 'own list.txt' # mine\nport = -1\n");
        assert_eq!(found.usable, "balancer.servers = 'own list.txt'\n");
    }
}
