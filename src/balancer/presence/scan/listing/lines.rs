//! The lines of `rsync --list-only`: mode, size, date, time and path, such as
//! `-rw-r--r--          1,536 2026/01/01 10:00:00 pool/a b.deb`.

use super::{ListedEntry, ListedSize};

/// The path and the entry of a line; `None` for a line of another form, such as a device or a message of the server.
#[must_use]
pub fn line(line: &[u8]) -> Option<(Vec<u8>, ListedEntry)> {
    let (mode, rest) = line.split_at_checked(10)?;
    let mut fields = rest.trim_ascii_start().splitn(4, |byte| *byte == b' ');
    let (size, date, time, path) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let is_date = |text: &[u8], sign| text.iter().all(|byte| byte.is_ascii_digit() || *byte == sign);
    if !is_date(date, b'/') || !is_date(time, b':') {
        return None;
    }
    let (path, entry) = match mode.first()? {
        b'd' => (path, ListedEntry::Folder),
        b'l' => (path.split_at_checked(memchr::memmem::find(path, b" -> ")?)?.0, ListedEntry::Link),
        b'-' => {
            // Versions before 3.1 write no commas.
            let digits: String =
                size.iter().filter(|byte| **byte != b',').map(|byte| char::from(*byte)).collect();
            (path, ListedEntry::File(ListedSize::exact(digits.parse().ok()?)))
        }
        _ => return None,
    };
    Some((unescaped(path), entry))
}

/// rsync writes bytes that a terminal may not show as `\#` and three octal digits.
fn unescaped(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        let code = rest.strip_prefix(b"\\#").and_then(|rest| rest.split_at_checked(3));
        let octal = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok();
        let decoded = code.and_then(|(digits, after)| Some((octal(digits)?, after)));
        let (byte, next) = decoded.unwrap_or((*first, after));
        plain.push(byte);
        rest = next;
    }
    plain
}
