//! The whole has a wrong digest: whose bytes are wrong?
//!
//! One source after the other is suspected. Its bytes are fetched a second time, from the others, and what they differ from
//! is kept aside. If the digest is right then, the suspect was the one; if not, its bytes are taken back, and the next is
//! suspected. So one corrupt source among several is found out with no byte fetched more than twice. Where a third source
//! can tell, small samples decide who is suspected first. Where no one is the only one, each is heard alone, as long as the
//! budget lasts.

use std::collections::{BTreeMap, HashSet, VecDeque};

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::super::checksum::Checksum;
use super::super::error::DownloadError;
use super::super::plan::{ByteRange, RangeSet, SourceId};
use super::super::redirect::Trail;
use super::engine::Engine;
use super::fetch::{Extent, Fetcher, Wanted};
use super::known;

/// How often a file may be fetched once more, in parts or as a whole, because its digest was wrong.
const MAX_AGAIN: u64 = 4;

/// The size of a sample, in bytes.
const SAMPLE_BYTES: u64 = 64 << 10;

/// The most sources whose bytes are sampled, each by two others.
const MAX_SAMPLED: usize = 8;

const REASON: &str = "the file had a wrong digest";

/// Who is suspected of wrong bytes, and who was.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// Whose bytes were fetched a second time.
    suspect: Option<Suspect>,
    /// Who is suspected next, in order; `None` before there was any doubt of what is there.
    next: Option<VecDeque<SourceId>>,
    /// Bytes that are fetched only because the digest was wrong.
    spent: u64,
    /// Who is heard alone if those that are asked now are wrong too, in order.
    unheard: VecDeque<SourceId>,
    /// Where pieces began that were wrong before.
    pieces: HashSet<u64>,
}

#[derive(Debug)]
struct Suspect {
    source: SourceId,
    /// What it had brought.
    supply: Vec<ByteRange>,
    /// Whether it was out for another reason.
    was_excluded: bool,
}

/// What another source has in the place of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Vote {
    /// Who brought the sample.
    about: SourceId,
    /// Who was asked for it too.
    by: SourceId,
    agrees: bool,
}

impl Doubt {
    /// Notes a wrong piece; whether it is the first time.
    pub(super) fn note_piece(&mut self, piece: ByteRange) -> bool {
        self.pieces.insert(piece.start)
    }

    /// How many pieces were wrong, of those that begin in `missing`.
    pub(super) fn wrong_pieces(&self, missing: &RangeSet) -> usize {
        let is_missing =
            |start: u64| !missing.within(ByteRange::new(start, start.saturating_add(1))).is_empty();
        self.pieces.iter().filter(|start| is_missing(**start)).count()
    }

    /// Those of an earlier round are heard before these.
    fn hear_later(&mut self, sources: VecDeque<SourceId>) {
        self.unheard.extend(sources);
    }
}

impl Engine<'_> {
    /// The whole has a wrong digest: says what is fetched again, and from whom not.
    pub(super) async fn repair(&mut self, found: Checksum, promised: Checksum) -> Result<(), DownloadError> {
        let path = self.target.clone().or_else(|| self.job.name());
        let name = path.map_or_else(|| "standard output".to_owned(), |path| path.display().to_string());
        let error = |name| DownloadError::WrongChecksum {
            name,
            found: Box::new(found),
            promised: Box::new(promised),
            unasked: 0,
        };
        let size = self.plan.size().unwrap_or_default();
        if self.target.is_none() {
            return Err(error(name));
        }
        self.checksum_error.get_or_insert_with(|| error(name));
        if size == 0 {
            return self.disbelieve_emptiness();
        }
        if !self.sources.remembered.is_empty() {
            // What an earlier run brought is nobody's: it is suspected before anybody is.
            let ranges: Vec<_> = self.sources.remembered.iter().collect();
            return self.lose_for_good(&ranges).await;
        }
        if let Some(suspect) = self.doubt.suspect.take() {
            self.clear(suspect).await?;
        }
        let suppliers: Vec<SourceId> =
            self.sources.ids().filter(|id| self.sources.supplied_bytes(*id) > 0).collect();
        if let [only] = suppliers.as_slice() {
            self.exclude(*only, REASON);
            if self.sources.ids().all(|id| self.plan.is_excluded(id)) {
                self.hear_next();
            }
            return self.begin_anew(&[ByteRange::new(0, size)], size).await;
        }
        if self.doubt.next.is_none() {
            self.doubt.next = Some(self.suspects(&suppliers).await?);
        }
        let Some(source) = self.doubt.next.as_mut().and_then(VecDeque::pop_front) else {
            // More than one was wrong.
            let heard = self.hear_one_of(&suppliers, REASON);
            let others = suppliers.into_iter().filter(|id| Some(*id) != heard);
            let ranges: Vec<ByteRange> = others.flat_map(|id| self.sources.supply(id)).collect();
            return self.begin_anew(&ranges, size).await;
        };
        let supply = self.sources.supply(source);
        self.spend(supply.iter().map(ByteRange::len).sum(), size)?;
        let was_excluded = self.plan.is_excluded(source);
        self.exclude(source, "the file had a wrong digest, and it is suspected");
        if let Some(writer) = &mut self.writer {
            writer.doubt().await?;
        }
        self.doubt.suspect = Some(Suspect { source, supply: supply.clone(), was_excluded });
        self.lose_for_good(&supply).await
    }

    /// A server that has an empty file brings nothing to suspect it by: whoever has answered is out.
    fn disbelieve_emptiness(&mut self) -> Result<(), DownloadError> {
        let has_answered = |id: &SourceId| {
            !self.plan.is_excluded(*id)
                && self.sources.get(*id).is_some_and(|entry| entry.first_byte.is_some())
        };
        let empty: Vec<SourceId> = self.sources.ids().filter(has_answered).collect();
        if empty.is_empty() || known(self.job).size.is_some() {
            return Err(self.final_error());
        }
        for source in empty {
            self.exclude(source, REASON);
        }
        self.disbelieve_size();
        Ok(())
    }

    /// Where nothing is kept of those that were wrong, neither is what they said of the size.
    fn disbelieve_size(&mut self) {
        if self.nothing_kept() && known(self.job).size.is_none() {
            self.identity.size = None;
            self.plan.forget_size();
        }
    }

    /// Nobody is left who could bring what was suspected: it is taken back, and the next is suspected, or heard. Whether there
    /// was anything.
    pub(super) async fn give_up_suspicion(&mut self) -> Result<bool, DownloadError> {
        let Some(suspect) = self.doubt.suspect.take() else { return Ok(self.hear_next()) };
        self.clear(suspect).await?;
        Ok(true)
    }

    /// Those that were wrong together are heard alone, one after the other, who brought most first; the first of them.
    pub(super) fn hear_one_of(&mut self, suppliers: &[SourceId], reason: &str) -> Option<SourceId> {
        let mut order: VecDeque<SourceId> =
            suppliers.iter().copied().filter(|id| !self.plan.is_excluded(*id)).collect();
        order.make_contiguous().sort_by_key(|id| std::cmp::Reverse(self.sources.supplied_bytes(*id)));
        let first = order.pop_front();
        for supplier in &order {
            self.exclude(*supplier, reason);
        }
        self.doubt.hear_later(order);
        if let Some(first) = first {
            // One that rested need not rest any more.
            self.plan.readmit(first);
        }
        first
    }

    /// Another one of those that were wrong together may be right alone; whether there is one.
    fn hear_next(&mut self) -> bool {
        let next = self.doubt.unheard.pop_front();
        if let Some(source) = next {
            self.plan.readmit(source);
        }
        next.is_some()
    }

    /// Counts bytes that are fetched because the digest was wrong; there is an end to them.
    fn spend(&mut self, bytes: u64, size: u64) -> Result<(), DownloadError> {
        self.doubt.spent = self.doubt.spent.saturating_add(bytes);
        if self.doubt.spent <= size.saturating_mul(MAX_AGAIN) {
            return Ok(());
        }
        let is_unasked = |id: &SourceId| !self.plan.is_excluded(*id) && self.sources.supplied_bytes(*id) == 0;
        let left = self.sources.ids().filter(is_unasked).count().saturating_add(self.doubt.unheard.len());
        if let Some(DownloadError::WrongChecksum { unasked, .. }) = &mut self.checksum_error {
            *unasked = left;
        }
        Err(self.final_error())
    }

    /// With the bytes of others in the place of its own the digest was wrong as well: all is as before.
    async fn clear(&mut self, suspect: Suspect) -> Result<(), DownloadError> {
        if let Some(writer) = &mut self.writer {
            writer.take_back().await?;
        }
        for range in &suspect.supply {
            let never_came: u64 = self.plan.missing().within(*range).iter().map(ByteRange::len).sum();
            self.doubt.spent = self.doubt.spent.saturating_sub(never_came);
            self.sources.forget(*range);
            self.sources.note_supply(suspect.source, *range);
            self.plan.regain(*range);
        }
        if !suspect.was_excluded {
            self.plan.readmit(suspect.source);
        }
        Ok(())
    }

    /// All of it, or all but what the one brought that is heard alone, is fetched again from those that are not out.
    async fn begin_anew(&mut self, ranges: &[ByteRange], size: u64) -> Result<(), DownloadError> {
        self.doubt.next = None;
        self.spend(ranges.iter().map(ByteRange::len).sum(), size)?;
        if let Some(writer) = &mut self.writer {
            writer.accept().await?;
        }
        self.lose_for_good(ranges).await
    }

    /// Everything was written and checked before: no further piece can turn out wrong.
    async fn lose_for_good(&mut self, ranges: &[ByteRange]) -> Result<(), DownloadError> {
        self.lose(ranges, REASON).await?;
        self.disbelieve_size();
        Ok(())
    }

    /// Everybody who brought something, those first whom samples tell against, then those that brought least.
    async fn suspects(&mut self, suppliers: &[SourceId]) -> Result<VecDeque<SourceId>, DownloadError> {
        let votes = self.votes(suppliers).await?;
        let against = weigh(&votes);
        let mut order = suppliers.to_vec();
        order.sort_by_key(|id| {
            let weight = against.get(id).copied().unwrap_or_default();
            (std::cmp::Reverse(weight), self.sources.supplied_bytes(*id))
        });
        Ok(order.into())
    }

    /// Asks two others for a sample of what each source brought. Of two alone, neither can be told from the other.
    async fn votes(&mut self, suppliers: &[SourceId]) -> Result<Vec<Vote>, DownloadError> {
        let trusted: Vec<SourceId> = self.sources.ids().filter(|id| self.plan.is_trusted(*id)).collect();
        if trusted.len() < 3 {
            return Ok(Vec::new());
        }
        let mut asking = FuturesUnordered::new();
        for &about in suppliers.iter().take(MAX_SAMPLED) {
            let supply = self.sources.supply(about);
            let Some(longest) = supply.into_iter().max_by_key(ByteRange::len) else { continue };
            let middle = longest.start.saturating_add(longest.len() / 2);
            let sample = ByteRange::new(middle, middle.saturating_add(SAMPLE_BYTES)).intersection(&longest);
            let Some(writer) = &mut self.writer else { continue };
            let own = writer.read(sample).await?;
            for &by in trusted.iter().filter(|by| **by != about).take(2) {
                let Some(entry) = self.sources.get(by) else { continue };
                self.doubt.spent = self.doubt.spent.saturating_add(sample.len());
                let validator = entry.validator.as_deref().or(self.identity.validator());
                let validator = validator.map(ToOwned::to_owned);
                let wanted = Wanted { range: sample, size: self.plan.size(), validator };
                let (fetcher, trail, own) = (self.fetcher.clone(), entry.trail.clone(), own.clone());
                asking.push(async move {
                    let agrees = fetch_sample(&fetcher, trail, wanted).await.map(|bytes| bytes == own);
                    agrees.map(|agrees| Vote { about, by, agrees })
                });
            }
        }
        let mut stop = self.context.stop.clone();
        let mut votes = Vec::new();
        let counting = async {
            while let Some(vote) = asking.next().await {
                votes.extend(vote);
            }
        };
        tokio::select! {
            // Who does not answer in time has no vote.
            _ = tokio::time::timeout(self.context.options.plan.drop_after, counting) => {}
            _ = stop.wait_for(|is_wanted| *is_wanted) => return Err(DownloadError::Interrupted),
        }
        Ok(votes)
    }
}

/// The bytes of a part; `None` where the server sends anything else.
async fn fetch_sample(fetcher: &Fetcher, trail: Trail, wanted: Wanted) -> Option<Vec<u8>> {
    let length = usize::try_from(wanted.range.len()).ok()?;
    let mut opened =
        fetcher.open(trail, wanted).await.ok().filter(|opened| opened.extent != Extent::Whole)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = opened.answer.chunk().await.ok()? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > length {
            return None;
        }
    }
    opened.answer.finish();
    (bytes.len() == length).then_some(bytes)
}

/// How much tells against each source: where two contradict a third, that one; where one contradicts the other two, the one.
fn weigh(votes: &[Vote]) -> BTreeMap<SourceId, usize> {
    let mut against: BTreeMap<SourceId, usize> = BTreeMap::new();
    let samples: BTreeMap<SourceId, Vec<Vote>> = votes.iter().fold(BTreeMap::new(), |mut samples, vote| {
        samples.entry(vote.about).or_insert_with(Vec::new).push(*vote);
        samples
    });
    for (about, votes) in samples {
        let blamed = match votes.as_slice() {
            [one, two] if !one.agrees && !two.agrees => about,
            [one, two] if one.agrees != two.agrees => {
                if one.agrees {
                    two.by
                } else {
                    one.by
                }
            }
            _ => continue,
        };
        *against.entry(blamed).or_default() += 1;
    }
    against
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(about: usize, by: usize, agrees: bool) -> Vote {
        Vote { about: SourceId(about), by: SourceId(by), agrees }
    }

    #[test]
    fn two_tell_against_the_third() {
        // Source 1 is wrong everywhere.
        let votes = [
            vote(0, 1, false),
            vote(0, 2, true),
            vote(1, 0, false),
            vote(1, 2, false),
            vote(2, 0, true),
            vote(2, 1, false),
        ];
        assert_eq!(weigh(&votes), BTreeMap::from([(SourceId(1), 3)]));
    }

    #[test]
    fn a_second_round_takes_the_turn_of_nobody() {
        let mut doubt = Doubt::default();
        doubt.hear_later(VecDeque::from([SourceId(1), SourceId(2)]));
        doubt.hear_later(VecDeque::from([SourceId(3)]));
        assert_eq!(doubt.unheard, [SourceId(1), SourceId(2), SourceId(3)]);
    }

    #[test]
    fn agreement_and_single_votes_tell_nothing() {
        assert!(weigh(&[vote(0, 1, true), vote(0, 2, true), vote(1, 0, false)]).is_empty());
        assert!(weigh(&[]).is_empty());
    }
}
