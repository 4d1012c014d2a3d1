//! The syntax of the `Host` header. Pure.

/// Whether this is a host with an optional port (RFC 9112, section 3.2), or empty. The value is not used here, but a
/// proxy that forwards an invalid one may have interpreted the request differently.
pub(crate) fn is_host(value: &[u8]) -> bool {
    let after_host = if value.first() == Some(&b'[') {
        let Some(end) = memchr::memchr(b']', value) else { return false };
        if !value.get(1..end).unwrap_or_default().iter().all(|byte| is_of_name(*byte) || *byte == b':') {
            return false;
        }
        value.get(end + 1..).unwrap_or_default()
    } else {
        let length = value.iter().position(|byte| !is_of_name(*byte)).unwrap_or(value.len());
        value.get(length..).unwrap_or_default()
    };
    match after_host {
        [] => true,
        [b':', port @ ..] => port.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// Whether a byte may appear in a name (RFC 3986, section 3.2.2).
fn is_of_name(byte: u8) -> bool {
    const OF_NAME: [bool; 256] =
        byte_table(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%!$&'()*+,;=");
    OF_NAME.get(usize::from(byte)) == Some(&true)
}

/// A table that is true for the bytes of `set`.
pub(crate) const fn byte_table(set: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut at = 0;
    while at < set.len() {
        #[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        {
            table[set[at] as usize] = true;
        }
        at += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_and_without_a_port_are_valid() {
        for host in [
            "",
            "x",
            "mirror.example",
            "mirror.example:8080",
            "x:",
            "10.0.0.1:80",
            "[::1]",
            "[::1]:80",
            "a_b",
        ] {
            assert!(is_host(host.as_bytes()), "{host:?}");
        }
    }

    #[test]
    fn other_texts_are_invalid() {
        for host in [
            "a b", "a/b", "a,b/", "[::1", "::1", "[::1]x", "x:y", "x:1:2", "[a/b]", "a@b", "\u{e9}", "a\"",
            "x]",
        ] {
            assert!(!is_host(host.as_bytes()), "{host:?}");
        }
    }
}
