//! A catalogue as bytes, for the state that survives a restart.

use std::sync::Arc;

use super::{Catalogue, PieceDigests, Record, RecordKind};

/// Reads numbers and bytes in the order in which they were written; little-endian.
#[derive(Debug)]
pub(crate) struct ByteReader<'a>(pub(crate) &'a [u8]);

impl<'a> ByteReader<'a> {
    /// The next bytes; `None` if there are fewer.
    pub(crate) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    /// The next bytes as an array.
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    /// The next number of 32 bits.
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next number of 64 bits.
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next number, which is the number of values of `read` that follow.
    pub(crate) fn list<T>(&mut self, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u32()?;
        (0..count).map(|_| read(self)).collect()
    }

    /// Bytes after their number.
    pub(crate) fn counted(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.bytes(length as usize)
    }
}

const FOLDER: u8 = 1;
const DIGEST: u8 = 2;

impl Catalogue {
    /// Appends the catalogue.
    pub(crate) fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend((self.paths.len() as u32).to_le_bytes());
        bytes.extend(&self.paths);
        bytes.extend((self.records.len() as u32).to_le_bytes());
        for record in &self.records {
            let folder = if record.kind == RecordKind::Folder { FOLDER } else { 0 };
            bytes.extend(record.start.to_le_bytes());
            bytes.extend(record.length.to_le_bytes());
            bytes.push(folder | if record.has_digest { DIGEST } else { 0 });
            bytes.extend(record.size.to_le_bytes());
            bytes.extend(record.sha256);
        }
        bytes.extend((self.by_path.len() as u32).to_le_bytes());
        bytes.extend(self.by_path.iter().flat_map(|rank| rank.to_le_bytes()));
        bytes.extend((self.pieces.len() as u32).to_le_bytes());
        for (rank, pieces) in &self.pieces {
            bytes.extend(rank.to_le_bytes());
            bytes.extend(pieces.length.to_le_bytes());
            bytes.extend((pieces.digests.len() as u32).to_le_bytes());
            bytes.extend(pieces.digests.as_flattened());
        }
    }

    /// Reads a catalogue; `None` if the bytes have another form.
    pub(crate) fn decode(bytes: &mut ByteReader<'_>) -> Option<Self> {
        let paths = bytes.counted()?.into();
        let records = bytes.list(|bytes| {
            let start = bytes.u32()?;
            let length = bytes.array().map(u16::from_le_bytes)?;
            let [flags] = bytes.array()?;
            let kind = if flags & FOLDER != 0 { RecordKind::Folder } else { RecordKind::File };
            let (size, sha256) = (bytes.u64()?, bytes.array()?);
            Some(Record { start, length, kind, has_digest: flags & DIGEST != 0, size, sha256 })
        })?;
        let by_path = bytes.list(ByteReader::u32)?;
        let pieces = bytes.list(|bytes| {
            let (rank, length) = (bytes.u32()?, bytes.u64()?);
            let digests = bytes.list(ByteReader::array)?.into();
            Some((rank, Arc::new(PieceDigests { length, digests })))
        })?;
        let files = records.iter().filter(|record| record.kind == RecordKind::File).count();
        Some(Self { paths, records: records.into(), by_path: by_path.into(), files, pieces: pieces.into() })
    }
}
