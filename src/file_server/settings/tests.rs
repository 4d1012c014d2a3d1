use super::*;

fn load(key: &'static str, value: &str) -> Result<ServerSettings, SettingsError> {
    settings::section::<RawServerSettings>("server", vec![(key, value.to_owned())])?.try_into()
}

#[test]
fn the_defaults_are_valid() {
    let raw: RawServerSettings = settings::section("server", Vec::new()).unwrap();
    let settings: ServerSettings = raw.try_into().unwrap();
    assert_eq!(settings.cache_bytes, 64 << 20);
    assert!(settings.host.workers > 0 && settings.pages.is_none() && settings.cache_control.is_none());
}

#[test]
fn digests_are_disabled_or_in_memory_or_in_a_file() {
    let plan = |value| load("server.digests", value).unwrap().digests;
    assert!(plan("off").is_none());
    assert!(plan("memory").unwrap().file.is_none());
    assert_eq!(plan("./off").unwrap().file, Some(PathBuf::from("./off")));
    assert_eq!(load("server.digest_rate", "0").unwrap().digests.unwrap().rate, None);
}

#[test]
fn an_error_names_the_invalid_key() {
    for (key, value) in [
        ("server.head_timeout", "0s"),
        ("server.max_connections", "0"),
        ("server.max_connections_per_address", "0"),
        ("server.cache_control", "a\nb"),
        ("server.cache_bytes", "many"),
        ("server.digests", ""),
        ("server.unix_socket_mode", "rw"),
        ("server.unix_socket_mode", "1777"),
    ] {
        let message = load(key, value).unwrap_err().to_string();
        assert!(message.contains(key.trim_start_matches("server.")), "{message}");
    }
}
