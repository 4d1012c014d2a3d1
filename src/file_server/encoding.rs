//! Selects a content coding from `Accept-Encoding` (RFC 9110, section 12.5.3). Pure.

use std::cmp::Reverse;

/// A content coding of precompressed files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// All codings, in the order of the server's preference.
    pub(super) const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// Its name in `Accept-Encoding` and `Content-Encoding`.
    pub(super) fn token(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// The file name extension of this coding, with its dot.
    pub(super) fn ending(self) -> &'static str {
        match self {
            Self::Brotli => ".br",
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
        }
    }

    fn is_named(self, token: &[u8]) -> bool {
        token.eq_ignore_ascii_case(self.token().as_bytes())
            || (self == Self::Gzip && token.eq_ignore_ascii_case(b"x-gzip"))
    }
}

/// A quality value in thousandths; 0 refuses the coding.
pub(super) type Weight = u16;

/// The codings that a client prefers to the plain file, in the order of its preference and then of the server's.
///
/// `fields` are the values of all `Accept-Encoding` lines. A coding must be listed; malformed members are ignored. A
/// client that refuses the plain file gets it all the same if no other representation exists.
pub(super) fn wanted<'a>(fields: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = Coding> {
    let mut weights = Coding::ALL.map(|coding| (None, coding));
    let (mut identity, mut others) = (None, None);
    for (name, weight) in fields.flat_map(|field| field.split(|byte| *byte == b',')).filter_map(parse) {
        if name == b"*" {
            others.get_or_insert(weight);
        } else if name.eq_ignore_ascii_case(b"identity") {
            identity.get_or_insert(weight);
        } else if let Some((own, _)) = weights.iter_mut().find(|(_, coding)| coding.is_named(name)) {
            own.get_or_insert(weight);
        }
    }
    let identity: Weight = identity.or(others).unwrap_or(0);
    let mut weights = weights.map(|(weight, coding)| (weight.or(others).unwrap_or(0), coding));
    // A stable sort keeps the server's order among equal weights.
    weights.sort_by_key(|(weight, _)| Reverse(*weight));
    weights
        .into_iter()
        .filter(move |(weight, _)| *weight > 0 && *weight >= identity)
        .map(|(_, coding)| coding)
}

/// Parses one member, such as `gzip;q=0.5`. `None` if it is malformed.
fn parse(member: &[u8]) -> Option<(&[u8], Weight)> {
    let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let weight = match parts.next() {
        None => 1000,
        Some(parameter) => {
            let (b"q" | b"Q", b"=", value) = (parameter.get(..1)?, parameter.get(1..2)?, parameter.get(2..)?)
            else {
                return None;
            };
            parse_weight(value)?
        }
    };
    parts.next().is_none().then_some((name, weight))
}

/// Parses `0` or `1` with up to three decimal digits (RFC 9110, section 12.4.2).
pub(super) fn parse_weight(value: &[u8]) -> Option<Weight> {
    let (whole, rest) = value.split_first()?;
    let digits = match rest {
        [] => rest,
        [b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return None,
    };
    let mut thousandths = match whole {
        b'0' => 0,
        b'1' => 1000,
        _ => return None,
    };
    for (digit, worth) in digits.iter().zip([100, 10, 1]) {
        thousandths += Weight::from(char::from(*digit).to_digit(10)? as u8) * worth;
    }
    (thousandths <= 1000).then_some(thousandths)
}

#[cfg(test)]
mod tests;
