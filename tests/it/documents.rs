//! The documents agree with the program.

use std::path::Path;

/// A key of `config/default.toml`, with the text of its default.
struct Key {
    section: &'static str,
    name: &'static str,
    default: &'static str,
}

fn keys() -> Vec<Key> {
    let mut section = "";
    let mut keys = Vec::new();
    for line in include_str!("../../config/default.toml").lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        } else if let Some((name, default)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            keys.push(Key { section, name, default });
        }
    }
    keys
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The section of a document below `## heading`.
fn below<'a>(document: &'a str, heading: &str) -> &'a str {
    let heading = format!("\n## {heading}\n");
    let start = document.find(&heading).unwrap_or_else(|| panic!("no {heading:?}")) + heading.len();
    let rest = &document[start..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

#[test]
fn the_configuration_document_has_every_key_with_its_default() {
    let document = read("docs/configuration.md");
    for Key { section, name, default } in keys() {
        let row = format!("\n| `{name}` | `{default}` | ");
        assert!(below(&document, &format!("[{section}]")).contains(&row), "no row {row:?} below [{section}]");
    }
}

#[test]
fn the_configuration_document_has_no_unknown_key() {
    let document = read("docs/configuration.md");
    let keys = keys();
    for section in ["balancer", "server", "fleet"] {
        for row in below(&document, &format!("[{section}]")).lines().filter(|line| line.starts_with("| `")) {
            let name = row.split('`').nth(1).unwrap();
            assert!(keys.iter().any(|key| key.section == section && key.name == name), "{section}.{name}");
        }
    }
}

#[test]
fn the_configuration_document_names_the_flag_of_each_key() {
    let document = read("docs/configuration.md");
    let output = |command: &str| {
        let output = super::support::program::fingerpost().args([command, "--help-all"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for section in ["balancer", "server"] {
        let table = below(&document, &format!("[{section}]"));
        for flag in output(section).split_whitespace().filter(|word| word.starts_with("--")) {
            let own = ["--config", "--help", "--help-all", "--version", "--log-format", "--log-level"];
            assert!(own.contains(&flag) || table.contains(&format!("Flag `{flag}`")), "{section} {flag}");
        }
    }
}

#[test]
fn links_between_documents_are_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    documents.extend(std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    for document in
        documents.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md"))
    {
        let text = std::fs::read_to_string(document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap();
            if !file.is_empty() && !file.contains("://") {
                assert!(document.with_file_name(file).exists(), "{}: {link}", document.display());
            }
        }
    }
}

#[test]
fn the_code_map_names_existing_files_and_every_module() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = read("docs/architecture.md");
    let map = below(&document, "Code map");
    let named: Vec<_> = map
        .lines()
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| line.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .collect();
    for path in &named {
        assert!(root.join(path).exists(), "{path}");
    }
    let rooms = ["src", "src/balancer"].into_iter().flat_map(|folder| {
        std::fs::read_dir(root.join(folder))
            .unwrap()
            .map(move |entry| format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap()))
    });
    for room in rooms.filter(|room| !room.ends_with("settings.rs") && room != "src/balancer") {
        assert!(named.iter().any(|path| path.starts_with(&room)), "{room} is not on the map");
    }
}
