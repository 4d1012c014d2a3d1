//! Indexes as HTML. Each link to a direct child of the folder is an entry. A size is read only in the form in which nginx, Apache
//! and lighttpd write it: after the time of the file.

use std::borrow::Cow;

use memchr::memchr;
use url::Url;

use super::{LONGEST_NAME, ListedEntry, ListedSize, ListingError, child};

/// The bytes after a link in which its size is searched.
const ROW: usize = 4096;

pub(super) fn parse(
    page: &[u8],
    base: &Url,
    take: &mut dyn FnMut(&[u8], ListedEntry),
) -> Result<(), ListingError> {
    let mut rest = page;
    while let Some(attributes) = anchor(rest) {
        let (reference, after) = reference(attributes);
        rest = after;
        let Some(reference) = reference else { continue };
        if reference.len() > 8 * LONGEST_NAME {
            return Err(ListingError::LongName { bytes: reference.len() });
        }
        let reference = unescaped(&String::from_utf8_lossy(reference)).into_owned();
        if let Some((name, is_folder)) = child(base, &reference)? {
            take(&name, if is_folder { ListedEntry::Folder } else { ListedEntry::File(size(after)) });
        }
    }
    Ok(())
}

/// The text after the next `<a `.
fn anchor(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = text.get(memchr(b'<', text)? + 1..)?;
        if let [b'a' | b'A', space, ..] = text
            && space.is_ascii_whitespace()
        {
            return text.get(1..);
        }
    }
}

/// The value of `href`, and the text after the tag.
fn reference(mut text: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let mut reference = None;
    loop {
        text = text.trim_ascii_start();
        let Some(first) = text.first() else { return (reference, text) };
        if *first == b'>' {
            return (reference, text.get(1..).unwrap_or_default());
        }
        let ends_name = |byte: &u8| byte.is_ascii_whitespace() || b"=>".contains(byte);
        // A sign without a name is skipped.
        let end = text.iter().position(ends_name).unwrap_or(text.len());
        let (name, after) = text.split_at(end);
        text = after.trim_ascii_start();
        let Some(value) = text.strip_prefix(b"=") else { continue };
        let value = value.trim_ascii_start();
        let (value, after) = if let Some((quote @ (b'"' | b'\''), quoted)) = value.split_first() {
            let end = memchr(*quote, quoted).unwrap_or(quoted.len());
            (quoted.get(..end).unwrap_or_default(), quoted.get(end + 1..).unwrap_or_default())
        } else {
            let end = value.iter().position(|byte| byte.is_ascii_whitespace() || *byte == b'>');
            value.split_at(end.unwrap_or(value.len()))
        };
        if name.eq_ignore_ascii_case(b"href") && reference.is_none() {
            reference = Some(value);
        }
        text = after;
    }
}

/// The size in the text after a link, up to the next one.
fn size(after: &[u8]) -> ListedSize {
    let row = after.get(..ROW.min(after.len())).unwrap_or_default();
    let end = anchor(row).map_or(row.len(), |next| row.len() - next.len());
    let row = String::from_utf8_lossy(row.get(..end).unwrap_or_default());
    let Some((_, row)) = row.split_once("</a") else { return ListedSize::UNKNOWN };
    // Without the tags.
    let text: String =
        row.split('<').flat_map(|part| [part.split_once('>').map_or("", |(_, text)| text), " "]).collect();
    let mut words = text.split_ascii_whitespace().skip_while(|word| !is_time(word)).skip(1);
    words.next().and_then(ListedSize::parse).unwrap_or(ListedSize::UNKNOWN)
}

/// Whether a word is a time such as `10:00` or `10:00:59`.
fn is_time(word: &str) -> bool {
    matches!(word.len(), 5 | 8)
        && word
            .bytes()
            .enumerate()
            .all(|(at, byte)| if at % 3 == 2 { byte == b':' } else { byte.is_ascii_digit() })
}

/// The text with the characters to which its references such as `&amp;` and `&#39;` refer.
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return text.into();
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        plain.push_str(before);
        let known = after.split_once(';').and_then(|(name, rest)| Some((entity(name)?, rest)));
        let (sign, next) = known.unwrap_or(('&', after));
        plain.push(sign);
        rest = next;
    }
    (plain + rest).into()
}

fn entity(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => '\u{a0}',
        _ => {
            let number = name.strip_prefix('#').filter(|number| number.len() <= 8)?;
            let number = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(number.ok()?)?
        }
    })
}
