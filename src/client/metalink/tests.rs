use proptest::prelude::*;

use super::*;

fn document(inner: &str) -> String {
    format!("<?xml version=\"1.0\"?><metalink xmlns=\"{NAMESPACE}\">{inner}</metalink>")
}

#[test]
fn files_mirrors_and_digests() {
    let hash = "ab".repeat(32);
    let files = parse(&document(&format!(
        "<file name=\"dir/../x.iso\"><size>5</size><hash type=\"md5\">00</hash><hash type=\"sha-256\">{hash}</hash>\
             <pieces length=\"4\" type=\"sha-256\"><hash>{hash}</hash><hash>{hash}</hash></pieces>\
             <url priority=\"2\">http://b/x</url><url priority=\"1\">https://a/x</url><url>ftp://c/x</url></file>\
             <file name=\"nowhere\"/>"
    )))
    .unwrap();
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].name, PathBuf::from("x.iso"));
    assert_eq!(files[0].urls.iter().map(Url::as_str).collect::<Vec<_>>(), ["https://a/x", "http://b/x"]);
    assert_eq!(files[0].identity.size, Some(5));
    assert_eq!(files[0].pieces.as_ref().unwrap().digests.len(), 2);
}

#[test]
fn the_best_digest_is_used_and_unsupported_ones_are_reported() {
    let file = |hashes: &str| {
        parse(&document(&format!("<file name=\"x\"><size>5</size>{hashes}<url>http://a/x</url></file>")))
            .unwrap()
            .remove(0)
    };
    let hash = |kind: &str, bytes: usize| format!("<hash type=\"{kind}\">{}</hash>", "ab".repeat(bytes));
    let algorithm = |file: &MetalinkFile| file.identity.digest.map(|(digest, _)| digest.algorithm());
    let both = file(&(hash("sha-1", 20) + &hash("sha-512", 64)));
    assert_eq!((algorithm(&both), both.unchecked), (Some(Algorithm::Sha512), None));
    let all = file(&(hash("sha-512", 64) + &hash("sha1", 20) + &hash("SHA-256", 32)));
    assert_eq!(algorithm(&all), Some(Algorithm::Sha256));
    let weak = file(&(hash("md5", 16) + &hash("tiger", 24)));
    assert_eq!((algorithm(&weak), weak.unchecked.as_deref()), (None, Some("md5, tiger")));
    let pieces = format!(
        "<pieces length=\"4\" type=\"sha-1\">{0}{0}</pieces>",
        format!("<hash>{}</hash>", "cd".repeat(20))
    );
    assert_eq!(file(&pieces).pieces.unwrap().digests[0].algorithm(), Algorithm::Sha1);
}

#[test]
fn hostile_documents_are_refused() {
    let url = "<url>http://a/x</url>";
    for bad in [
        "<!DOCTYPE x [<!ENTITY a \"b\">]><x>&a;</x>".to_owned(),
        "<a>".repeat(100_000),
        document(&"<file>".repeat(100_000)),
        document(&format!("<file name=\"x\"><size>-1</size>{url}</file>")),
        document(&format!("<file name=\"x\"><size>99999999999999999999</size>{url}</file>")),
        document(&format!(
            "<file name=\"x\"><size>9</size><pieces length=\"0\" type=\"sha-256\"/>{url}</file>"
        )),
        document("<file name=\"x\"><url>file:///etc/passwd</url></file>"),
        "<html/>".to_owned(),
        String::new(),
    ] {
        assert!(parse(&bad).is_err(), "{}", bad.chars().take(80).collect::<String>());
    }
}

proptest! {
    #[test]
    fn any_text_is_parsed_without_panic(text in "[<>/a-z\"= !&;\\[\\]-]{0,120}") {
        let _ = parse(&document(&text));
    }
}
