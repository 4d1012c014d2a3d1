//! A module of `src` imports only from layers below its own. `docs/architecture.md` lists the layers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed test may panic")]
#![allow(clippy::indexing_slicing, reason = "a failed test may panic")]

use std::collections::BTreeMap;
use std::path::Path;

mod imports;

use imports::{Import, imports};

/// The layers of one folder, as listed: the rank of each module, and the number of its unit in this layer. Modules of equal
/// rank import each other only within one unit.
type Ranks = BTreeMap<String, (usize, usize)>;

/// The lines of the block labelled `layers`, one folder each: `folder: a, b < c < d`.
fn layers(document: &str) -> BTreeMap<String, Ranks> {
    let block = document.split_once("```layers\n").and_then(|(_, rest)| rest.split_once("```"));
    let (block, _) = block.expect("the document has a block of layers");
    let mut folders = BTreeMap::<String, Ranks>::new();
    for line in block.replace("\n  ", " ").lines() {
        let (folder, layers) = line.split_once(':').expect("a line starts with a folder");
        let ranks = folders.entry(folder.to_owned()).or_default();
        for (rank, layer) in layers.split('<').enumerate() {
            for (number, unit) in layer.split(',').enumerate() {
                for module in unit.split('+').map(str::trim) {
                    let earlier = ranks.insert(module.to_owned(), (rank, number));
                    assert_eq!(earlier, None, "{folder} lists {module} twice");
                }
            }
        }
    }
    folders
}

/// The errors in `files`, which are pairs of a path below `src` and a text.
fn violations(folders: &BTreeMap<String, Ranks>, files: &[(String, String)]) -> Vec<String> {
    let mut found = Vec::new();
    for (folder, ranks) in folders {
        let root: Vec<&str> = folder.split('/').skip(1).collect();
        for (path, text) in files {
            let module = module_of(path);
            let Some(inside) = module.strip_prefix(root.as_slice()) else { continue };
            let own = inside.first().copied().unwrap_or("mod");
            let Some(own_at) = ranks.get(own) else {
                found.push(format!("{folder} does not list the module {own}"));
                continue;
            };
            for Import { line, path: imported } in imports(text, &module) {
                let imported: Vec<&str> = imported.iter().map(String::as_str).collect();
                let Some(target) = imported.strip_prefix(root.as_slice()) else { continue };
                let Some(first) = target.first() else { continue };
                let target = if ranks.contains_key(*first) { *first } else { "mod" };
                if target != own
                    && ranks.get(target).is_none_or(|other| other != own_at && other.0 >= own_at.0)
                {
                    found.push(format!("src/{path}:{line}: {own} imports {}", imported.join("::")));
                }
            }
        }
        let exists = |module: &String| {
            let path: Vec<&str> = root.iter().copied().chain([module.as_str()]).collect();
            module == "mod" || files.iter().any(|(file, _)| module_of(file).starts_with(&path))
        };
        let missing = ranks.keys().filter(|module| !exists(module));
        found.extend(missing.map(|module| format!("{folder} lists {module}, which does not exist")));
    }
    found.sort();
    found.dedup();
    found
}

/// The path of the module in a file: `http/tls.rs` is `http::tls`, and `lib.rs` the root.
fn module_of(path: &str) -> Vec<&str> {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let mut module: Vec<&str> = path.split('/').collect();
    module.pop_if(|last| *last == "mod" || *last == "lib");
    module
}

/// The code of the library, without its tests.
fn sources(folder: &Path, below: &str, files: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{below}{name}");
        if name == "tests" || name == "tests.rs" || path == "main.rs" {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            sources(&entry.path(), &format!("{path}/"), files);
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            files.push((path, std::fs::read_to_string(entry.path()).unwrap()));
        }
    }
}

#[test]
fn every_import_points_to_a_lower_layer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let mut files = Vec::new();
    sources(&root.join("src"), "", &mut files);
    assert!(files.len() > 50, "{}", files.len());
    let found = violations(&layers(&document), &files);
    assert!(found.is_empty(), "imports against the layers in docs/architecture.md:\n{}", found.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYERS: &str =
        "# Title\n```layers\nsrc: log, time < http\n  < shop < mod\nsrc/http: head < client < mod\n```\n";

    /// The violations of a small tree that has all modules of [`LAYERS`], and `text` in the file `path`.
    fn check(path: &str, text: &str) -> Vec<String> {
        let all = ["log.rs", "time.rs", "http/head.rs", "http/client.rs", "shop.rs", "lib.rs"];
        let mut files: Vec<_> = all.iter().map(|name| ((*name).to_owned(), String::new())).collect();
        files.retain(|(name, _)| name != path);
        files.push((path.to_owned(), text.to_owned()));
        violations(&layers(LAYERS), &files)
    }

    #[test]
    fn imports_that_point_down_are_allowed() {
        for (path, text) in [
            ("shop.rs", "use crate::http::{client, head::Head};\nfn f() { crate::log::line() }"),
            ("http/client.rs", "use super::head;\nuse super::super::time;\nuse std::time;"),
            ("lib.rs", "mod shop;\nuse shop::Cart;\n"),
            ("log.rs", "use log::x; use self::inner::y; mod inner;"),
        ] {
            assert_eq!(check(path, text), Vec::<String>::new());
        }
    }

    #[test]
    fn an_import_that_points_up_or_sideways_is_found() {
        for (path, text, found) in [
            ("log.rs", "use crate::shop;", "src/log.rs:1: log imports shop"),
            ("log.rs", "use crate::time::Clock;", "src/log.rs:1: log imports time::Clock"),
            ("http/head.rs", "\nuse crate::shop::Cart;", "src/http/head.rs:2: http imports shop::Cart"),
            ("http/head.rs", "use super::client::A;", "src/http/head.rs:1: head imports http::client::A"),
            ("log.rs", "use crate::{time::{a, b}};", "src/log.rs:1: log imports time::a"),
            ("log.rs", "fn f() { g(crate::shop::CART) }", "src/log.rs:1: log imports shop::CART"),
            ("log.rs", "fn f() { m!(crate::shop::g()) }", "src/log.rs:1: log imports shop::g"),
            ("log.rs", "pub(in crate::shop) fn f() {}\npub use crate::run;", "src/log.rs:2: log imports run"),
        ] {
            assert_eq!(check(path, text).first().map(String::as_str), Some(found), "{text}");
        }
    }

    #[test]
    fn the_modules_of_a_unit_import_each_other() {
        let folders = layers("```layers\nsrc: a < b + c, d < mod\n```");
        let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let files = [
            file("a.rs", ""),
            file("b.rs", "use crate::c;"),
            file("c.rs", "use crate::{a, b, d};"),
            file("d.rs", ""),
        ];
        assert_eq!(violations(&folders, &files), ["src/c.rs:1: c imports d"]);
    }

    #[test]
    fn a_cycle_is_found_in_any_order_of_its_modules() {
        assert!(!check("http/head.rs", "use super::client::A;").is_empty());
        // An order that permits `head` to import `client` forbids the opposite.
        let folders = layers("```layers\nsrc: client < head < mod\n```");
        let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let cycle = [
            file("head.rs", "use crate::client;"),
            file("client.rs", "use crate::head;"),
            file("lib.rs", ""),
        ];
        assert_eq!(violations(&folders, &cycle), ["src/client.rs:1: client imports head"]);
    }

    #[test]
    fn tests_comments_and_text_are_no_imports() {
        let text = "// use crate::shop;\n/// [`crate::shop`]\nconst A: &str = \"crate::shop::x\";\n\
                    #[cfg(test)]\nmod tests { use crate::shop; }\n#[cfg(test)]\nuse crate::shop;";
        assert_eq!(check("log.rs", text), Vec::<String>::new());
    }

    #[test]
    fn the_list_names_every_module_and_no_other() {
        assert_eq!(check("new.rs", ""), ["src does not list the module new"]);
        let folders = layers("```layers\nsrc: gone < mod\n```");
        assert_eq!(violations(&folders, &[]), ["src lists gone, which does not exist"]);
    }
}
