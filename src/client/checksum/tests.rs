use proptest::prelude::*;

use super::*;

#[test]
fn known_digests() {
    for (algorithm, hex) in [
        (Algorithm::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (Algorithm::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            Algorithm::Sha512,
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                 2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
    ] {
        let mut hasher = ChecksumHasher::new(algorithm);
        hasher.update(b"ab");
        hasher.update(b"c");
        assert_eq!(hasher.finish().to_string(), format!("{}={hex}", algorithm.name()));
    }
}

#[test]
fn names_of_algorithms_may_lack_the_hyphen() {
    assert_eq!(Algorithm::named("SHA-512"), Some(Algorithm::Sha512));
    assert_eq!(Algorithm::named("sha1"), Some(Algorithm::Sha1));
    assert_eq!(Algorithm::named("md5"), None);
}

proptest! {
    #[test]
    fn the_text_form_round_trips(bytes in prop::collection::vec(any::<u8>(), 0..70)) {
        for algorithm in Algorithm::ALL {
            let Some(checksum) = Checksum::new(algorithm, &bytes) else { continue };
            prop_assert_eq!(Checksum::parse_named(&checksum.to_string()), Some(checksum));
            prop_assert_eq!(Checksum::parse(algorithm, &STANDARD.encode(&bytes)), Some(checksum));
        }
    }

    #[test]
    fn any_text_is_parsed_without_panic(text in ".{0,130}") {
        for algorithm in Algorithm::ALL {
            let _ = Checksum::parse(algorithm, &text);
        }
        let _ = Checksum::parse_named(&text);
    }
}
