use proptest::prelude::*;

use super::*;

fn urls(values: &[&str]) -> Vec<String> {
    let base = Url::parse("http://balancer/dir/file").unwrap();
    mirrors(&base, values.iter().copied()).into_iter().map(|mirror| mirror.url.to_string()).collect()
}

#[test]
fn a_metalink_that_describes_the_file_is_found() {
    let base = "https://a/dir/f".parse().unwrap();
    let of = |value: &str| description(&base, [value].into_iter()).map(|url| url.to_string());
    let metalink = "<./f.meta4>; rel=describedby; type=\"application/metalink4+xml\"";
    assert_eq!(of(metalink).as_deref(), Some("https://a/dir/f.meta4"));
    assert_eq!(of(&format!("<sig>; rel=describedby, {metalink}")).as_deref(), Some("https://a/dir/f.meta4"));
    for other in [
        "<f.sig>; rel=describedby",
        &metalink.replace("describedby", "duplicate"),
        &metalink.replace("./f", "http://b/f"),
    ] {
        assert_eq!(of(other), None, "{other}");
    }
}

#[test]
fn mirrors_in_order_of_priority() {
    assert_eq!(
        urls(&[
            "<http://c/f>; rel=duplicate, <http://b/f?x=1,2>; rel=\"duplicate\"; pri=2; geo=de",
            "<http://a/f>; pri=1; title=\"a; b, <c>\"; rel=\"other DUPLICATE\"",
            "<http://a/f>; rel=duplicate; pri=9, <sig>; rel=describedby, <../x>; rel=duplicate;pri=3",
        ]),
        ["http://a/f", "http://b/f?x=1,2", "http://balancer/x", "http://c/f"]
    );
}

#[test]
fn invalid_mirrors_are_skipped() {
    assert!(
        urls(&[
            "<ftp://a/f>; rel=duplicate, <file:///etc/passwd>; rel=duplicate, http://a; rel=duplicate",
            "<"
        ])
        .is_empty()
    );
    let secure = Url::parse("https://balancer/f").unwrap();
    assert!(mirrors(&secure, ["<http://a/f>; rel=duplicate"].into_iter()).is_empty());
    let many: Vec<String> = (0..1000).map(|index| format!("<http://h{index}/f>; rel=duplicate")).collect();
    assert_eq!(urls(&[&many.join(",")]).len(), MAX_MIRRORS);
}

proptest! {
    #[test]
    fn any_text_is_parsed_without_panic(text in "[<>;,=\"a-z:/ ]{0,80}") {
        let _ = urls(&[&text]);
    }
}
