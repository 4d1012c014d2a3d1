//! Backends that registered themselves in an engine.

use std::time::Duration;

use tokio::time::Instant;

use super::SourceError;
use super::merge::SourceAnswer;
use crate::balancer::backends::Backend;
use crate::balancer::backends::list::{self, MAX_BACKENDS};
use crate::engine::EngineClient;
use crate::registration::{CHANGES_KEY, MAX_BYTES, SERVER_KEYS, line_of};

/// The interval of polls for a change.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The interval of complete reads without a change. They find leases that ended, and repair a lost change.
const COMPLETE_INTERVAL: Duration = Duration::from_secs(5);
/// The part of the time that complete reads may take, as a divisor.
const READING_SHARE: u32 = 4;
/// The longest value of the key of changes, in bytes.
const MAX_CHANGE_BYTES: usize = 64;

/// Reads the registrations once they change.
pub(super) struct RegistryReader {
    engine: EngineClient,
    /// The value of the key of changes before the last complete read, and the time of this read.
    last: Option<(Vec<u8>, Instant)>,
}

impl RegistryReader {
    pub(super) fn new(engine: EngineClient) -> Self {
        Self { engine, last: None }
    }

    /// Returns the answer, `None` if it did not change, and the pause before the next call.
    pub(super) async fn read(&mut self) -> Result<(Option<SourceAnswer>, Duration), SourceError> {
        // Before the complete read: a change during this read causes another one.
        let change = self.engine.read([&*self.engine.key(CHANGES_KEY)], MAX_CHANGE_BYTES).await?;
        let change = change.into_iter().next().unwrap_or_default();
        let is_unchanged =
            |(last, read_at): &(Vec<u8>, Instant)| *last == change && read_at.elapsed() < COMPLETE_INTERVAL;
        if self.last.as_ref().is_some_and(is_unchanged) {
            return Ok((None, POLL_INTERVAL));
        }
        let began = Instant::now();
        let prefix = self.engine.key(SERVER_KEYS);
        // As many servers may have left as there can be backends.
        let keys = self.engine.scan(&prefix, 2 * MAX_BACKENDS).await?;
        let values = self.engine.read(keys.iter().map(String::as_str), MAX_BYTES + 1).await?;
        let addresses = keys.iter().filter_map(|key| key.strip_prefix(&prefix));
        let answer = parse(addresses.zip(values.iter().map(Vec::as_slice)));
        self.last = Some((change, began));
        Ok((Some(answer), POLL_INTERVAL.max(began.elapsed() * READING_SHARE)))
    }
}

/// Parses registrations, which are pairs of an address and a value. An empty value is that of a lease that ended.
fn parse<'a>(registrations: impl Iterator<Item = (&'a str, &'a [u8])>) -> SourceAnswer {
    let mut answer = SourceAnswer::default();
    for (address, value) in registrations.filter(|(_, value)| !value.is_empty()) {
        let mut words = line_of(value).unwrap_or("invalid").split_ascii_whitespace();
        match (words.next(), list::parse_address(address)) {
            (None, Ok(id)) => answer.left.push(id),
            // The value must not register another server than its key.
            (Some(word), Ok(_)) if word == address => match list::from_words(word, words) {
                Ok(backend) if is_allowed(&backend) => answer.backends.push(backend),
                _ => answer.skipped += 1,
            },
            _ => answer.skipped += 1,
        }
    }
    answer
}

/// Whether a registration may set these attributes: it sets neither paths that the balancer requests nor the origin.
fn is_allowed(backend: &Backend) -> bool {
    let requests = (backend.expectation(), backend.proof(), backend.scan());
    requests == (None, None, None) && !backend.is_origin()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_sets_address_weight_tier_and_zone_only() {
        let long = format!("1 7 http://10.0.0.9:80 zone={}", "z".repeat(MAX_BYTES));
        let registrations: [(&str, &[u8]); 12] = [
            ("http://10.0.0.1:80", b"1 7 http://10.0.0.1:80 weight=2 tier=1 zone=eu"),
            ("http://10.0.0.2:80", b"3 7"),
            ("http://10.0.0.3:80", b""),
            ("http://10.0.0.4:80", b"1 7 http://10.0.0.4:80 expect=text:x"),
            ("http://10.0.0.6:80", b"1 7 http://10.0.0.6:80 proof=TIME"),
            ("http://10.0.0.7:80", b"1 7 http://10.0.0.7:80 origin"),
            ("http://10.0.0.8:80", b"1 7 http://10.0.0.8:80 scan=http://10.0.0.9/"),
            ("http://10.0.0.5:80", b"1 7 http://10.0.0.1:80"),
            ("http://10.0.0.6:80", b"http://10.0.0.6:80"),
            ("http://10.0.0.7:80", b"\xFF\x00"),
            ("nonsense", b"1 7"),
            ("http://10.0.0.9:80", long.as_bytes()),
        ];
        let SourceAnswer { backends, left, skipped } = parse(registrations.into_iter());
        assert_eq!(
            backends.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.0.1:80 weight=2 tier=1 zone=eu"]
        );
        assert_eq!(left.iter().map(ToString::to_string).collect::<Vec<_>>(), ["http://10.0.0.2:80"]);
        assert_eq!(skipped, 9);
    }
}
