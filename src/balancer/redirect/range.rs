//! The length of a requested range.

/// The largest number of bytes that a request with this `Range` header gets; `None` if it asks for several ranges, or for a
/// range up to the end of the file.
pub(super) fn requested_bytes(range: &[u8]) -> Option<u64> {
    let range = str::from_utf8(range).ok()?.trim().strip_prefix("bytes=")?;
    let (first, last) = range.split_once('-')?;
    let last: u64 = last.parse().ok()?;
    if first.is_empty() {
        return Some(last);
    }
    last.checked_sub(first.parse().ok()?)?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_range_with_an_end_has_a_length() {
        let cases: [(&str, Option<u64>); 8] = [
            ("bytes=0-99", Some(100)),
            ("bytes=5-5", Some(1)),
            ("bytes=-500", Some(500)),
            ("bytes=5-", None),
            ("bytes=9-5", None),
            ("bytes=0-1,4-5", None),
            ("items=0-1", None),
            ("bytes=0-18446744073709551615", None),
        ];
        for (range, bytes) in cases {
            assert_eq!(requested_bytes(range.as_bytes()), bytes, "{range}");
        }
    }
}
