//! Proofs: a mirror has a generation if one file of it, the proof, has the content that belongs to this generation. Pure.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::generation::{Generation, Location};
use super::index::{AGES, OLD};
use crate::balancer::policy::digest;

/// The digests of proofs by generation, the oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct ProofHistory {
    generations: VecDeque<GenerationDigests>,
}

/// The digests of one generation.
#[derive(Debug, Clone)]
pub(super) struct GenerationDigests {
    pub(super) number: u64,
    /// The digest of the list itself, which may be a proof.
    pub(super) list: [u8; 32],
    pub(super) proofs: HashMap<Arc<str>, [u8; 32]>,
}

/// The generation to which the content of a proof belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProofMatch {
    /// The latest with this content.
    Generation(u64),
    /// No generation that is remembered.
    Other,
    /// The content of the proof is not known for the current generation.
    NoReference,
}

impl ProofHistory {
    /// The history with these generations, the oldest first.
    pub(super) fn new(generations: Vec<GenerationDigests>) -> Self {
        Self { generations: generations.into() }
    }

    /// All generations, the oldest first.
    pub(super) fn generations(&self) -> &VecDeque<GenerationDigests> {
        &self.generations
    }

    /// Records the digests of these proofs in the current generation.
    pub(super) fn observe<'a>(&mut self, current: &Generation, proofs: impl Iterator<Item = &'a Arc<str>>) {
        if self.generations.back().is_none_or(|latest| latest.number != current.number) {
            let (number, list) = (current.number, current.source);
            // A proof that was the list itself is the new list now.
            let before = self.generations.back().into_iter();
            let before =
                before.flat_map(|latest| latest.proofs.iter().filter(|(_, digest)| **digest == latest.list));
            let proofs = before.map(|(proof, _)| (Arc::clone(proof), list)).collect();
            self.generations.push_back(GenerationDigests { number, list, proofs });
            if self.generations.len() > AGES {
                self.generations.pop_front();
            }
        }
        let Some(latest) = self.generations.back_mut() else { return };
        for proof in proofs {
            if !latest.proofs.contains_key(proof)
                && let Location::File(file) = current.locate(proof.as_bytes(), digest(proof.as_bytes()))
                && let Some(sha256) = file.content.sha256
            {
                latest.proofs.insert(Arc::clone(proof), sha256);
            }
        }
    }

    /// Records that the origin has this proof in the current generation, unless the catalogue has its digest.
    pub(super) fn learn(&mut self, proof: &Arc<str>, sha256: [u8; 32]) {
        if let Some(latest) = self.generations.back_mut() {
            latest.proofs.entry(Arc::clone(proof)).or_insert(sha256);
        }
    }

    /// Records that a mirror has this proof. If it is the list itself, other content belongs to no known generation.
    pub(super) fn recognise(&mut self, proof: &Arc<str>, sha256: &[u8; 32]) {
        if self.generations.iter().any(|known| known.list == *sha256) {
            for known in &mut self.generations {
                known.proofs.entry(Arc::clone(proof)).or_insert(known.list);
            }
        }
    }

    /// Compares the content of a proof.
    #[must_use]
    pub(super) fn compare(&self, proof: &Arc<str>, sha256: &[u8; 32]) -> ProofMatch {
        let matches =
            |known: &&GenerationDigests| known.list == *sha256 || known.proofs.get(proof) == Some(sha256);
        match self.generations.iter().rev().find(matches) {
            Some(found) => ProofMatch::Generation(found.number),
            None if self.generations.back().is_some_and(|latest| latest.proofs.contains_key(proof)) => {
                ProofMatch::Other
            }
            None => ProofMatch::NoReference,
        }
    }
}

/// The age of the newest files that a mirror with a proof of `generation` has; above [`OLD`] if it is too old to know.
#[must_use]
pub(super) fn proven_age(current: u64, generation: u64) -> u8 {
    u8::try_from(current.saturating_sub(generation)).unwrap_or(u8::MAX).min(OLD + 1)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::balancer::catalogue;

    fn next(old: Option<&Generation>, release: char) -> Generation {
        let line = |path, digit: char| format!("{}  {path}\n", digit.to_string().repeat(64));
        let text = line("release", release) + &line("a", '1');
        let catalogue = Arc::new(catalogue::parse(text.as_bytes()).unwrap());
        Generation::next(old, catalogue, [release as u8; 32], 1, &[], SystemTime::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn a_proof_belongs_to_the_latest_generation_with_its_content() {
        let [release, other] = ["/release", "/other"].map(Arc::<str>::from);
        let mut history = ProofHistory::default();
        let first = next(None, '1');
        history.observe(&first, [&release, &other].into_iter());
        assert_eq!(history.compare(&release, &[0x11; 32]), ProofMatch::Generation(1));
        assert_eq!(history.compare(&release, &[0x22; 32]), ProofMatch::Other);
        assert_eq!(history.compare(&other, &[0x22; 32]), ProofMatch::NoReference);
        // The list itself is a proof, too.
        assert_eq!(history.compare(&other, &[b'1'; 32]), ProofMatch::Generation(1));
        let list = Arc::<str>::from("/list");
        history.recognise(&list, &[b'9'; 32]);
        assert_eq!(history.compare(&list, &[b'9'; 32]), ProofMatch::NoReference);
        history.recognise(&list, &[b'1'; 32]);
        assert_eq!(history.compare(&list, &[b'9'; 32]), ProofMatch::Other);

        let second = next(Some(&first), '2');
        history.observe(&second, [&release].into_iter());
        assert_eq!(history.compare(&release, &[0x11; 32]), ProofMatch::Generation(1));
        assert_eq!(history.compare(&release, &[0x22; 32]), ProofMatch::Generation(2));
        let of_list = [b'1', b'2', b'9'].map(|byte| history.compare(&list, &[byte; 32]));
        assert_eq!(of_list, [ProofMatch::Generation(1), ProofMatch::Generation(2), ProofMatch::Other]);
        history.learn(&other, [7; 32]);
        history.learn(&release, [7; 32]);
        assert_eq!(history.compare(&other, &[7; 32]), ProofMatch::Generation(2));
        assert_eq!(history.compare(&release, &[7; 32]), ProofMatch::Other);

        let mut latest = second;
        for _ in 0..AGES {
            latest = next(Some(&latest), '3');
            history.observe(&latest, [&release].into_iter());
        }
        assert_eq!(history.compare(&release, &[0x22; 32]), ProofMatch::Other);
        assert_eq!(history.compare(&release, &[0x33; 32]), ProofMatch::Generation(latest.number));
        assert_eq!([proven_age(9, 9), proven_age(9, 7), proven_age(900, 7)], [0, 2, OLD + 1]);
    }
}
