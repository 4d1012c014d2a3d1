//! Verification of pieces for outputs that take bytes in order: nothing can be read back, so each piece is
//! verified before its last bytes are written.

use crate::client::checksum::{ChecksumHasher, Pieces};

/// The current piece and those after it.
#[derive(Debug)]
pub(super) struct PieceVerifier {
    pieces: Pieces,
    /// Hash of the current piece, once it has begun.
    hasher: Option<ChecksumHasher>,
    /// Bytes verified or hashed so far.
    position: u64,
}

impl PieceVerifier {
    pub(super) fn new(pieces: Pieces) -> Self {
        Self { pieces, hasher: None, position: 0 }
    }

    /// Hashes the next bytes. If they complete a piece with a wrong digest, fails with the start of that
    /// piece.
    pub(super) fn verify(&mut self, mut bytes: &[u8]) -> Result<(), u64> {
        while !bytes.is_empty() {
            let number = self.position / self.pieces.length;
            let start = number.saturating_mul(self.pieces.length);
            let end = start.saturating_add(self.pieces.length).min(self.pieces.size);
            let room = end.saturating_sub(self.position);
            let known = usize::try_from(number).ok().and_then(|number| self.pieces.digests.get(number));
            let (Some(known), 1..) = (known, room) else { return Ok(()) };
            let taken = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(taken);
            let mut hasher = self.hasher.take().unwrap_or_else(|| ChecksumHasher::new(known.algorithm()));
            hasher.update(now);
            bytes = later;
            self.position = self.position.saturating_add(taken as u64);
            if self.position < end {
                self.hasher = Some(hasher);
            } else if hasher.finish() != *known {
                return Err(start);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::client::checksum::{Algorithm, Checksum};

    fn digest(bytes: &[u8]) -> Checksum {
        let mut hasher = ChecksumHasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    proptest! {
        /// However the bytes are split, the first wrong piece is reported, and no other.
        #[test]
        fn the_first_wrong_piece_is_found(
            file in prop::collection::vec(any::<u8>(), 1..200),
            length in 1_usize..50,
            cut in 1_usize..70,
            wrong in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let digests = file.chunks(length).map(digest).collect();
            let pieces = Pieces { length: length as u64, size: file.len() as u64, digests };
            let mut received = file.clone();
            let wrong = wrong.map(|index| index.index(file.len()));
            if let Some(at) = wrong {
                received[at] ^= 1;
            }
            let mut verifier = PieceVerifier::new(pieces);
            let found = received.chunks(cut).try_for_each(|bytes| verifier.verify(bytes));
            let expected = wrong.map_or(Ok(()), |at| Err((at / length * length) as u64));
            prop_assert_eq!(found, expected);
        }
    }
}
