//! Any listing of a mirror: it names only direct children of the folder, in names of limited length.
#![no_main]

use fingerpost::internals::listing::{LONGEST_NAME, index, line};
use libfuzzer_sys::fuzz_target;
use url::Url;

fuzz_target!(|bytes: &[u8]| {
    let base = Url::parse("http://m.example/pub/").expect("it is a URL");
    let _ = index(bytes, &base, &mut |name, _| {
        assert!((1..=LONGEST_NAME).contains(&name.len()));
        assert!(!name.contains(&b'/') && name != b"." && name != b"..");
    });
    let _ = line(bytes);
});
