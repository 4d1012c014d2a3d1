use super::*;
use crate::settings::reload::FixedKeys;
use crate::{balancer, file_server};

fn valid(raw: RawSettings) -> Result<RawSettings, SettingsError> {
    validate(&raw).map(|()| raw)
}

#[test]
fn the_defaults_are_valid_settings() {
    load(None, Vec::new(), valid).unwrap();
}

#[test]
fn the_examples_are_valid_settings() {
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples")).unwrap() {
        let path = entry.unwrap().path();
        load(Some(&path), Vec::new(), valid).unwrap();
    }
}

#[test]
fn the_keys_that_need_a_restart_exist_and_are_documented() {
    let text = include_str!("../../docs/configuration.md").split_whitespace().collect::<Vec<_>>().join(" ");
    let known: Vec<_> = settings::keys::known_keys().into_iter().map(|key| key.name()).collect();
    for FixedKeys { section, fixed, switches } in
        [&balancer::settings::FIXED_KEYS, &file_server::settings::FIXED_KEYS]
    {
        let keys = fixed.split(' ');
        let documented = keys.clone().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        assert!(text.contains(&format!("`[{section}]`: {documented}.")), "{documented}");
        for key in keys.chain(switches.iter().copied()) {
            assert!(known.contains(&format!("{section}.{key}")), "{key}");
        }
    }
}

#[test]
fn a_flag_overrides_a_file_and_a_file_overrides_the_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml");
    std::fs::write(&path, "[balancer]\nport = 1111\nfall = 7\n").unwrap();
    let flags = vec![("balancer.port", "2222".to_owned())];
    let settings = load(Some(&path), flags, valid).unwrap().settings;
    assert_eq!((settings.balancer.port, settings.balancer.fall), (2222, 7));
}

#[test]
fn the_message_names_the_first_wrong_line_and_counts_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml");
    std::fs::write(&path, "[balancer]\nprot = 1111\nport = true\n").unwrap();
    let message = load(Some(&path), Vec::new(), valid).unwrap_err().to_string();
    assert!(message.contains("own.toml:2: balancer.prot: "), "{message}");
    assert!(message.ends_with("; `fingerpost check` names 1 more"), "{message}");
}

#[test]
fn the_message_for_an_invalid_value_names_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml");
    std::fs::write(&path, "[balancer]\nrise = 1\nfall = 0\n").unwrap();
    let message = load(Some(&path), Vec::new(), valid).unwrap_err().to_string();
    assert!(message.ends_with("own.toml:3: balancer.fall = 0: it must be at least 1"), "{message}");
}

#[test]
fn an_endless_file_and_a_directory_are_errors() {
    for (path, words) in [("/dev/zero", "larger than 1 MiB"), ("/", "directory")] {
        let message = crate::telemetry::chain(&load(Some(Path::new(path)), Vec::new(), valid).unwrap_err());
        assert!(message.contains(path) && message.contains(words), "{message}");
    }
}

#[test]
fn a_time_longer_than_a_year_is_an_error() {
    for time in ["366d", "500000000y"] {
        let flags = vec![("balancer.shutdown_timeout", time.to_owned())];
        let message = load(None, flags, valid).unwrap_err().to_string();
        assert!(message.contains("balancer.shutdown_timeout") && message.contains("365d"), "{message}");
    }
    load(None, vec![("balancer.shutdown_timeout", "365d".to_owned())], valid).unwrap();
}
