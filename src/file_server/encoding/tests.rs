use proptest::prelude::*;

use super::*;

fn list(fields: &[&str]) -> String {
    let tokens: Vec<_> = wanted(fields.iter().map(|field| field.as_bytes())).map(Coding::token).collect();
    tokens.join(" ")
}

#[test]
fn codings_are_ordered_by_weight_and_then_by_our_preference() {
    for (field, expected) in [
        ("", ""),
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "br zstd gzip"),
        ("GZIP;Q=0.5,br;q=0.1", "gzip br"),
        ("x-gzip", "gzip"),
        ("gzip;q=1.000, br;q=0.999", "gzip br"),
        ("gzip ; q=0.5 , br ;q=0.50", "br gzip"),
        ("*", "br zstd gzip"),
        ("*;q=0", ""),
        ("br;q=0, *", "zstd gzip"),
        ("gzip, *;q=0", "gzip"),
        ("identity", ""),
        ("identity;q=0", ""),
        ("identity;q=0, gzip;q=0.1", "gzip"),
        ("identity, gzip;q=0.5", ""),
        ("identity;q=0.5, gzip;q=0.5, br;q=0.4", "gzip"),
        ("*;q=0.5, gzip;q=0.4, br", "br zstd"),
        ("deflate", ""),
    ] {
        assert_eq!(list(&[field]), expected, "{field}");
    }
    assert_eq!(list(&[]), "");
    assert_eq!(list(&["gzip;q=0.5", "br;q=0.4"]), "gzip br");
}

#[test]
fn malformed_members_are_ignored() {
    for member in
        ["gzip;q=", "gzip;q=2", "gzip;q=1.001", "gzip;q=0.1234", "gzip;q=-1", "gzip;q=a", "gzip;x=1", "gz ip"]
    {
        assert_eq!(list(&[member]), "", "{member}");
        assert_eq!(list(&[&format!("{member}, br")]), "br", "{member}");
    }
    assert_eq!(list(&[";;,,=,q=1;"]), "");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(fields: Vec<Vec<u8>>) {
        prop_assert!(wanted(fields.iter().map(Vec::as_slice)).count() <= Coding::ALL.len());
    }

    #[test]
    fn codings_with_a_larger_weight_are_first(weights in proptest::array::uniform4(0_u16..=1000)) {
        let [identity, weights @ ..] = weights;
        let members = Coding::ALL.iter().zip(weights);
        let member = |token: &str, weight| format!("{token};q={}.{:03}", weight / 1000, weight % 1000);
        let codings = members.clone().map(|(coding, weight)| member(coding.token(), weight));
        let field = codings.chain([member("identity", identity)]).collect::<Vec<_>>().join(", ");
        let weight_of = |coding| members.clone().find(|(own, _)| **own == coding).unwrap().1;
        let found: Vec<Weight> = wanted([field.as_bytes()].into_iter()).map(weight_of).collect();
        prop_assert!(found.is_sorted_by(|first, second| first >= second));
        let expected = weights.iter().filter(|weight| **weight > 0 && **weight >= identity).count();
        prop_assert_eq!(found.len(), expected);
    }
}
