use super::*;

#[test]
fn every_page_names_its_status_and_has_no_placeholder() {
    let pages = Pages::built_in();
    for (code, title, _) in TEXTS {
        let status = StatusCode::from_u16(code).unwrap();
        let html = String::from_utf8(pages.redirect(status, "http://a/b").to_vec()).unwrap();
        assert!(html.contains(&format!("<title>{code} {title}</title>")), "{html}");
        assert!(!html.contains("{{"), "{html}");
    }
}

#[test]
fn a_placeholder_within_a_field_is_not_replaced() {
    let own = Dress { title: b"{{content}}", style: "", heading: b"}}{{", content: b"{{title}}" };
    let html = String::from_utf8(dress(&own).to_vec()).unwrap();
    assert!(html.contains("<title>{{content}}</title>") && html.contains("<h1>}}{{</h1>\n{{title}}\n"));
}

#[test]
fn the_503_page_asks_to_try_again() {
    let html = Pages::built_in().html(StatusCode::SERVICE_UNAVAILABLE);
    assert!(String::from_utf8(html.to_vec()).unwrap().contains("try again"));
}

#[test]
fn markup_in_an_address_is_escaped() {
    let html = Pages::built_in().redirect(StatusCode::MOVED_PERMANENTLY, "http://a/?\"><script>'&");
    let html = String::from_utf8(html.to_vec()).unwrap();
    assert!(html.contains("http://a/?&quot;&gt;&lt;script&gt;&#39;&amp;"), "{html}");
    assert!(!html.contains("<script>"), "{html}");
}

#[test]
fn a_folder_replaces_single_pages() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("404.html"), "gone fishing").unwrap();
    std::fs::write(folder.path().join("301.html"), "over there: {{location}}").unwrap();
    let pages = Pages::load(folder.path()).unwrap();
    assert_eq!(pages.html(StatusCode::NOT_FOUND), "gone fishing");
    assert_eq!(pages.redirect(StatusCode::MOVED_PERMANENTLY, "http://a/"), "over there: http://a/");
    assert_eq!(pages.html(StatusCode::BAD_REQUEST), Pages::built_in().html(StatusCode::BAD_REQUEST));
}

#[test]
fn the_error_for_a_missing_folder_names_it() {
    let message = Pages::load(Path::new("/nowhere/at/all")).unwrap_err().to_string();
    assert!(message.contains("/nowhere/at/all"), "{message}");
}
