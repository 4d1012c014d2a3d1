use super::*;
use crate::client::checksum::Algorithm;

fn observed(size: u64, etag: Option<&str>, modified: Option<&str>) -> Observed {
    Observed {
        size: Some(size),
        etag: etag.map(ToOwned::to_owned),
        last_modified: modified.map(ToOwned::to_owned),
        digest: None,
        resource: "http://a/f".to_owned(),
    }
}

#[test]
fn validators_of_another_resource_prove_nothing() {
    let mut identity = ContentIdentity::default();
    identity.learn(&observed(10, Some("\"1\""), Some("Mon")));
    let other = Observed { resource: "http://a/g".to_owned(), ..observed(10, Some("\"1\""), Some("Mon")) };
    assert_eq!(identity.compare(&other, None), Verdict::Different);
    assert_eq!(identity.compare(&other, Some("\"1\"")), Verdict::Different);
    let digest = Checksum::new(Algorithm::Sha256, &[1; 32]);
    identity.digest = digest.map(|digest| (digest, Authority::Server));
    assert_eq!(identity.compare(&Observed { digest, ..other }, None), Verdict::Same);
}

#[test]
fn a_mirror_keeps_the_path_and_a_version_does_not() {
    let of = |requested: &str, answered: &str| {
        resource(&Url::parse(requested).unwrap(), &Url::parse(answered).unwrap())
    };
    let own = of("http://b/f?x", "http://b/f?x");
    assert_eq!(of("http://user:pw@b/f?x", "http://m:8/base/f?x"), own);
    for other in ["http://m/f", "http://m/1.2/g?x", "http://b/f?y"] {
        assert_ne!(of("http://b/f?x", other), own, "{other}");
    }
    assert_ne!(of("http://b/latest", "http://b/1.1/f"), of("http://b/latest", "http://b/1.2/f"));
    assert_eq!(of("http://b/latest", "http://c/1.1/f?key=1"), of("http://b/latest", "http://d/1.1/f?key=2"));
    assert_ne!(of("http://b/f", "http://b/f"), of("http://c/f", "http://c/f"));
}

#[test]
fn equality_needs_evidence() {
    let mut identity = ContentIdentity::default();
    let first = observed(10, Some("\"a\""), Some("Mon"));
    assert_eq!(identity.compare(&first, None), Verdict::Same);
    identity.learn(&first);
    let cases = [
        (observed(10, Some("\"a\""), None), None, Verdict::Same),
        (observed(11, Some("\"a\""), Some("Mon")), None, Verdict::Different),
        (observed(10, Some("\"b\""), Some("Mon")), None, Verdict::Same),
        (observed(10, Some("\"b\""), Some("Mon")), Some("\"a\""), Verdict::Different),
        (observed(10, Some("\"b\""), Some("Tue")), None, Verdict::Different),
        (observed(10, Some("\"b\""), None), None, Verdict::Different),
        (observed(10, None, None), None, Verdict::Different),
    ];
    for (seen, own, verdict) in cases {
        assert_eq!(identity.compare(&seen, own), verdict, "{seen:?} {own:?}");
    }
}

#[test]
fn a_digest_takes_precedence() {
    let digest = |byte| Checksum::new(Algorithm::Sha256, &[byte; 32]);
    let mut identity =
        ContentIdentity { digest: digest(1).map(|d| (d, Authority::Given)), ..ContentIdentity::default() };
    identity.learn(&observed(10, Some("\"a\""), Some("Mon")));
    let mut other = observed(10, Some("\"b\""), Some("Tue"));
    assert_eq!(identity.compare(&other, None), Verdict::Same);
    other.digest = digest(2);
    assert_eq!(identity.compare(&other, None), Verdict::Different);
    other.digest = digest(1);
    assert_eq!(identity.compare(&other, None), Verdict::Same);
}
