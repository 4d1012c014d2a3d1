//! `fingerpost import` from a Redis as mirrorbits writes it, and from its export.

use std::process::{Command, Output};

use super::support::engine::Engine;
use super::support::program::fingerpost;

/// The command without colours and times in its log.
fn import(arguments: &[&str]) -> Command {
    let mut command = fingerpost();
    command.args(["import", "mirrorbits", "--log-format", "json"]).args(arguments);
    command
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn mirrors_of_a_redis_become_a_valid_list() {
    let Some(engine) = Engine::start(&[]) else { return };
    // The keys and fields of mirrorbits after `add` and `enable`.
    let seed = |number: &str, name: &str, fields: &[&str]| {
        let _: () = engine.command(&["HSET", "MIRRORS", number, name]);
        let key = format!("MIRROR_{number}");
        let _: () = engine.command(&[&["HMSET", &key, "ID", number, "name", name], fields].concat());
    };
    let rsync = "rsync://near.example/pub/";
    seed("1", "near", &["http", "http://near.example/pub/", "rsync", rsync, "ftp", "", "sponsorName", ""]);
    seed("1", "near", &["countryCodes", "FR", "continentCode", "EU", "asnum", "64500", "countryOnly", "1"]);
    seed("1", "near", &["asOnly", "0", "score", "0", "latitude", "48.8566", "longitude", "2.3522"]);
    seed("1", "near", &["allowredirects", "0", "enabled", "1", "up", "1", "stateSince", "1700000000"]);
    seed(
        "12",
        "far",
        &["http", "https://far.example/", "rsync", "", "countryCodes", "US", "continentCode", "NA"],
    );
    seed("12", "far", &["asnum", "0", "score", "0", "allowredirects", "2", "enabled", "0"]);
    let folder = tempfile::tempdir().unwrap();
    let configuration = folder.path().join("mirrorbits.conf");
    let address = engine.url();
    let address = address.strip_prefix("redis://").unwrap();
    std::fs::write(&configuration, format!("Repository: /srv/repo\nRedisAddress: {address}\nGzip: true\n"))
        .unwrap();
    let output = import(&["--config", configuration.to_str().unwrap()]).output().unwrap();
    let (list, log) = text(&output);
    assert!(output.status.success(), "{log}");
    assert!(list.contains("#   catalogue_root = \"/srv/repo\"\n"), "{list}");
    for words in ["Gzip: ", "mirror far: it is used even if it redirects"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    let near = list.lines().find(|line| line.ends_with("# near")).unwrap();
    assert!(
        near.starts_with(
            "http://near.example/pub country=FR continent=EU asn=AS64500 lat=48.8566 lon=2.3522"
        ),
        "{near}"
    );
    assert!(near.contains(" only=FR scan=rsync://near.example/pub/ "), "{near}");
    assert!(list.contains("# disabled: https://far.example country=US continent=NA # far\n"), "{list}");

    // The balancer accepts the addresses.
    let path = folder.path().join("servers.txt");
    let addresses: Vec<&str> = list.lines().filter_map(|line| line.split([' ', '#']).next()).collect();
    std::fs::write(&path, addresses.join("\n")).unwrap();
    let check = fingerpost().args(["check", "--servers", path.to_str().unwrap()]).output().unwrap();
    assert!(check.status.success(), "{check:?}");

    let output = import(&["--redis", &format!("{}/1", engine.url())]).output().unwrap();
    assert!(
        !output.status.success() && text(&output).1.contains("has no mirror of mirrorbits"),
        "{output:?}"
    );
}

#[test]
fn an_export_becomes_a_list_and_errors_are_clear() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (export, wrong) = (path("export"), path("wrong.conf"));
    std::fs::write(&export, "DE  rsync://a.example/m/  a@example\nDE  http://a.example/m/  a@example\n")
        .unwrap();
    std::fs::write(&wrong, "Repository: [\n").unwrap();
    let output = import(&["--list", &export]).output().unwrap();
    assert!(
        text(&output).0.contains("http://a.example/m country=DE scan=rsync://a.example/m/"),
        "{output:?}"
    );
    for (arguments, code, message) in [
        (&[] as &[&str], 2, "--config <FILE>"),
        (&["--config", &wrong], 1, "wrong.conf is not a configuration of mirrorbits: "),
        (&["--list", &path("none")], 1, "cannot read "),
        (&["--redis", "redis://u:secret@host"], 1, "a password in a URL is visible"),
        (&["--redis", "redis://127.0.0.1:1"], 1, "cannot reach the engine"),
    ] {
        let output = import(arguments).output().unwrap();
        let log = text(&output).1;
        assert!(output.status.code() == Some(code) && log.contains(message), "{arguments:?} {output:?}");
        assert!(!log.contains("secret"), "{log}");
    }
}
