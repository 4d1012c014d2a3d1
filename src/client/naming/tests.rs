use proptest::prelude::*;

use super::*;

#[test]
fn names_of_addresses() {
    let name = |text: &str| from_url(&Url::parse(text).unwrap());
    assert_eq!(name("http://h/a/plshelp.txt?x=/y"), "plshelp.txt");
    assert_eq!(name("http://h/two%20words.bin"), "two words.bin");
    assert_eq!(name("http://h/..%2f..%2fetc%2fpasswd"), "passwd");
    assert_eq!(name("http://h/..%5C..%5Cboot.ini"), "boot.ini");
    assert_eq!(name("http://h/%00%0a.bashrc"), "bashrc");
    for kept in ["nul.txt", "aux.c", "a*b", "pkg_1:2.deb", "end."] {
        assert_eq!(name(&format!("http://h/{kept}")), kept);
    }
    assert_eq!(name("http://h/what%3F"), "what?");
    assert_eq!(name("http://h/%E4%c3%a4"), "%E4ä");
    assert_eq!(name(&format!("http://h/{}", "n".repeat(300))).len(), MAX_NAME_BYTES);
}

#[test]
fn names_that_a_server_proposes() {
    let name = |text: &str| from_content_disposition(text);
    assert_eq!(name("attachment; filename=\"../../x\"").as_deref(), Some("x"));
    assert_eq!(name("attachment; filename=plain.txt; size=3").as_deref(), Some("plain.txt"));
    assert_eq!(
        name("attachment; filename=\"e.txt\"; filename*=UTF-8''%e2%82%ac%20rates.txt").as_deref(),
        Some("€ rates.txt")
    );
    assert_eq!(name("attachment; filename=\"a;\\\"b.txt\"").as_deref(), Some("a;\"b.txt"));
    assert_eq!(name("filename=\"x\"").as_deref(), Some("x"));
    assert_eq!(name("attachment; flag; filename = x 9.txt;").as_deref(), Some("x 9.txt"));
    assert_eq!(name("attachment; filename=x; filename*=ISO-8859-1''%A37").as_deref(), Some("£7"));
    assert_eq!(name("attachment; filename=x; filename*=KOI8-R''%A37").as_deref(), Some("x"));
    assert_eq!(name("inline"), None);
    assert_eq!(name("attachment; filename=\"\"").as_deref(), Some(FALLBACK));
}

#[test]
fn paths_stay_in_their_folder() {
    for (path, expected) in [
        ("doc/a/README", "doc/a/README"),
        ("/etc/passwd", "etc/passwd"),
        ("../../x", "x"),
        ("a/../../b/./c", "b/c"),
        ("a/.ssh/x", "a/ssh/x"),
        ("..", FALLBACK),
        ("", FALLBACK),
    ] {
        assert_eq!(safe_path(path), PathBuf::from(expected), "{path}");
    }
}

proptest! {
    #[test]
    fn a_path_never_leaves_its_folder(text in "[a./\\\\\u{0}~ ]{0,30}") {
        let path = safe_path(&text);
        prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))), "{path:?}");
    }

    #[test]
    fn a_name_never_leaves_its_folder(text in any::<String>()) {
        for name in [Some(safe(&text)), from_content_disposition(&text)].into_iter().flatten() {
            prop_assert!(!name.is_empty() && name.len() <= MAX_NAME_BYTES);
            prop_assert!(!name.contains(['/', '\\', '\0']) && !name.starts_with('.'));
        }
    }
}
