//! The keys of all settings and their types, derived from `config/default.toml`.

use bytesize::ByteSize;
use toml::de::{DeTable, DeValue};

use super::{SettingsError, time};

/// A key of `config/default.toml`.
#[derive(Debug)]
pub(crate) struct KnownKey {
    pub(crate) section: String,
    pub(crate) key: String,
    pub(crate) kind: ValueKind,
}

impl KnownKey {
    /// Section and key, such as `balancer.port`.
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }
}

/// Every key that can be set, in the order of `config/default.toml`.
pub(crate) fn known_keys() -> Vec<KnownKey> {
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

/// The kind of values that a key takes, derived from its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueKind {
    Integer,
    Boolean,
    Time,
    Size,
    Text,
    List,
}

impl ValueKind {
    fn of(default: &DeValue<'_>) -> Self {
        match default {
            DeValue::Integer(_) => Self::Integer,
            DeValue::Boolean(_) => Self::Boolean,
            DeValue::Array(_) => Self::List,
            // Modes such as "660" are text without a unit; times and sizes have a unit.
            DeValue::String(text) if !text.ends_with(|last: char| last.is_ascii_alphabetic()) => Self::Text,
            DeValue::String(text) if humantime::parse_duration(text).is_ok() => Self::Time,
            DeValue::String(text) if text.parse::<ByteSize>().is_ok() => Self::Size,
            _ => Self::Text,
        }
    }

    /// Checks text from any layer. The error states a correct value.
    pub(crate) fn check_text(self, text: &str) -> Result<(), String> {
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
pub(crate) fn check_kinds(text: &str) -> Result<(), SettingsError> {
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
                (
                    ValueKind::Time | ValueKind::Size | ValueKind::Text | ValueKind::List,
                    DeValue::String(_),
                )
                | (ValueKind::Integer | ValueKind::Size | ValueKind::Text, DeValue::Integer(_))
                | (ValueKind::Boolean, DeValue::Boolean(_)) => continue,
                (ValueKind::List, DeValue::Array(texts))
                    if texts.iter().all(|text| matches!(text.get_ref(), DeValue::String(_))) =>
                {
                    continue;
                }
                (ValueKind::Time, _) => match kind.check_text(written) {
                    Ok(()) => continue,
                    Err(wanted) => wanted,
                },
                (ValueKind::Integer, _) => "it must be a whole number, such as 1".to_owned(),
                (ValueKind::Boolean, _) => "it must be true or false".to_owned(),
                (ValueKind::Size, _) => A_SIZE.to_owned(),
                (ValueKind::List, _) => "it must be a list of texts, such as [\"one\", \"two\"]".to_owned(),
                (ValueKind::Text, _) => "it must be text in quotes".to_owned(),
            };
            return Err(SettingsError::value(name, written, wanted));
        }
    }
    Ok(())
}
