//! The knowledge about the files of mirrors as a file, so that a restart continues with it.
//!
//! The file has a checksum and is replaced as a whole ([`StateFolder`]). Mirrors have other numbers after a restart, so the file
//! has their addresses.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::checks::Lack;
use super::generation::Generation;
use super::index::{IndexFull, MOST_MIRRORS, MirrorSets, PathState, PresenceIndex, SetInterner};
use super::proofs::{GenerationDigests, ProofHistory};
use crate::balancer::catalogue::{ByteReader, Catalogue};
use crate::balancer::state_folder::StateFolder;

/// The file in the folder of states.
const FILE: &str = "catalogue.bin";

const VERSION: u32 = 2;

/// The knowledge of a run.
#[derive(Debug)]
pub(crate) struct Knowledge {
    pub(super) generation: Arc<Generation>,
    /// The mirrors by their numbers.
    pub(super) mirrors: HashMap<u32, KnownMirror>,
    pub(super) history: ProofHistory,
    pub(super) exceptions: Vec<((u64, u32), Lack)>,
}

/// A mirror, and the evidence about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownMirror {
    /// Its address.
    pub(super) id: String,
    /// Its latest proof.
    pub(super) proof: Option<SeenProof>,
    /// Its latest good scan.
    pub(super) scan: Option<SeenScan>,
}

/// A good scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeenScan {
    /// The time of its start.
    pub(crate) at: SystemTime,
    /// The number of the catalogue at its start.
    pub(crate) generation: u64,
    /// The number of files of this catalogue that it found.
    pub(crate) files: u64,
}

/// The digest of a proof, and the time at which it was received first.
pub(super) type SeenProof = ([u8; 32], SystemTime);

/// The knowledge of an earlier run, with the numbers of that run.
#[derive(Debug)]
pub(crate) struct EarlierKnowledge {
    number: u64,
    made_at: SystemTime,
    source: [u8; 32],
    catalogue: Arc<Catalogue>,
    mirrors: HashMap<u32, KnownMirror>,
    history: ProofHistory,
    sets: Vec<Vec<u64>>,
    states: Vec<(u32, u8)>,
    exceptions: Vec<((u64, u32), Lack)>,
}

/// Writes the knowledge.
pub(super) fn save(folder: &StateFolder, knowledge: &Knowledge) -> io::Result<()> {
    folder.write(FILE, VERSION, &knowledge.encode())
}

/// Reads the knowledge of an earlier run. A file that is not usable is moved aside.
#[must_use]
pub(crate) fn load(folder: &StateFolder) -> Option<EarlierKnowledge> {
    folder.load(FILE, VERSION, |body| {
        let knowledge = EarlierKnowledge::decode(&mut ByteReader(body));
        knowledge.ok_or_else(|| "its content has another form".to_owned())
    })
}

impl Knowledge {
    /// The knowledge with a new generation.
    #[must_use]
    pub(super) fn next(earlier: Option<Self>, generation: Arc<Generation>) -> Self {
        let Some(Self { mirrors, history, mut exceptions, .. }) = earlier else {
            let (mirrors, history) = (HashMap::new(), ProofHistory::default());
            return Self { generation, mirrors, history, exceptions: Vec::new() };
        };
        exceptions.retain(|((key, mirror), _)| generation.lacks(*key, *mirror));
        Self { generation, mirrors, history, exceptions }
    }

    /// The mirrors whose evidence about files is a scan.
    pub(super) fn scanned(&self) -> Vec<u32> {
        let mirrors = self.mirrors.iter();
        mirrors.filter(|(_, mirror)| mirror.is_only_scanned()).map(|(number, _)| *number).collect()
    }

    fn encode(&self) -> Vec<u8> {
        let generation = &self.generation;
        let mut bytes = Vec::new();
        bytes.extend(generation.number.to_le_bytes());
        put_time(generation.made_at, &mut bytes);
        bytes.extend(generation.source);
        generation.catalogue.encode(&mut bytes);
        put_count(self.mirrors.len(), &mut bytes);
        for (number, KnownMirror { id, proof, scan }) in &self.mirrors {
            bytes.extend(number.to_le_bytes());
            put_counted(id.as_bytes(), &mut bytes);
            bytes.push(u8::from(proof.is_some()));
            let (digest, at) = proof.unwrap_or(([0; 32], SystemTime::UNIX_EPOCH));
            bytes.extend(digest);
            put_time(at, &mut bytes);
            bytes.push(u8::from(scan.is_some()));
            put_time(scan.map_or(SystemTime::UNIX_EPOCH, |scan| scan.at), &mut bytes);
            bytes.extend(scan.map_or(0, |scan| scan.generation).to_le_bytes());
            bytes.extend(scan.map_or(0, |scan| scan.files).to_le_bytes());
        }
        let generations = self.history.generations();
        put_count(generations.len(), &mut bytes);
        for GenerationDigests { number, list, proofs } in generations {
            bytes.extend(number.to_le_bytes());
            bytes.extend(list);
            put_count(proofs.len(), &mut bytes);
            for (path, digest) in proofs {
                put_counted(path.as_bytes(), &mut bytes);
                bytes.extend(digest);
            }
        }
        let sets = generation.index.sets();
        put_count(sets.count(), &mut bytes);
        for set in 0..sets.count() as u32 {
            let words: Vec<u64> = sets.get(set).words().collect();
            put_count(words.len(), &mut bytes);
            bytes.extend(words.into_iter().flat_map(u64::to_le_bytes));
        }
        put_count(generation.index.paths(), &mut bytes);
        for (_, PathState { set, age }) in generation.index.states() {
            bytes.extend(set.to_le_bytes());
            bytes.push(age);
        }
        put_count(self.exceptions.len(), &mut bytes);
        for ((key, mirror), lack) in &self.exceptions {
            bytes.extend(key.to_le_bytes());
            bytes.extend(mirror.to_le_bytes());
            let (kind, one, other) = match lack {
                Lack::Suspended => (0, 0, 0),
                Lack::Status(status) => (1, (*status).into(), 0),
                Lack::OtherSize { found, expected } => (2, *found, *expected),
                Lack::ListedSize { found, expected } => (3, *found, *expected),
            };
            bytes.push(kind);
            bytes.extend(one.to_le_bytes());
            bytes.extend(other.to_le_bytes());
        }
        bytes
    }
}

impl KnownMirror {
    fn is_only_scanned(&self) -> bool {
        self.scan.is_some() && self.proof.is_none()
    }
}

fn put_count(count: usize, bytes: &mut Vec<u8>) {
    bytes.extend((count as u32).to_le_bytes());
}

fn put_counted(content: &[u8], bytes: &mut Vec<u8>) {
    put_count(content.len(), bytes);
    bytes.extend(content);
}

fn put_time(time: SystemTime, bytes: &mut Vec<u8>) {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    bytes.extend(seconds.to_le_bytes());
}

fn time(bytes: &mut ByteReader<'_>) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(bytes.u64()?))
}

fn text(bytes: &mut ByteReader<'_>) -> Option<String> {
    String::from_utf8(bytes.counted()?.to_vec()).ok()
}

impl EarlierKnowledge {
    fn decode(bytes: &mut ByteReader<'_>) -> Option<Self> {
        let (number, made_at, source) = (bytes.u64()?, time(bytes)?, bytes.array()?);
        let catalogue = Arc::new(Catalogue::decode(bytes)?);
        let mirrors = bytes.list(|bytes| {
            let (number, id, [has_proof]) = (bytes.u32()?, text(bytes)?, bytes.array()?);
            let proof = (bytes.array()?, time(bytes)?);
            let [has_scan] = bytes.array()?;
            let scan = SeenScan { at: time(bytes)?, generation: bytes.u64()?, files: bytes.u64()? };
            let (proof, scan) = ((has_proof != 0).then_some(proof), (has_scan != 0).then_some(scan));
            Some((number, KnownMirror { id, proof, scan }))
        })?;
        let generations = bytes.list(|bytes| {
            let (number, list) = (bytes.u64()?, bytes.array()?);
            let proofs = bytes.list(|bytes| Some((text(bytes)?.into(), bytes.array()?)))?;
            Some(GenerationDigests { number, list, proofs: proofs.into_iter().collect() })
        })?;
        let sets = bytes.list(|bytes| bytes.list(ByteReader::u64))?;
        let states = bytes.list(|bytes| {
            let (set, [age]) = (bytes.u32()?, bytes.array()?);
            Some((set, age))
        })?;
        let exceptions = bytes.list(|bytes| {
            let (key, mirror, [kind]) = (bytes.u64()?, bytes.u32()?, bytes.array()?);
            let (one, other) = (bytes.u64()?, bytes.u64()?);
            let lack = match kind {
                0 => Lack::Suspended,
                1 => Lack::Status(one as u16),
                2 => Lack::OtherSize { found: one, expected: other },
                _ => Lack::ListedSize { found: one, expected: other },
            };
            Some(((key, mirror), lack))
        })?;
        let history = ProofHistory::new(generations);
        let mirrors = mirrors.into_iter().collect();
        Some(Self { number, made_at, source, catalogue, mirrors, history, sets, states, exceptions })
    }

    /// The knowledge with the numbers of this run, by address. Mirrors that left the list are forgotten.
    pub(crate) fn restore(self, numbers: &HashMap<&str, u32>) -> Result<Knowledge, IndexFull> {
        let numbers: HashMap<u32, u32> = self
            .mirrors
            .iter()
            .filter_map(|(old, mirror)| Some((*old, *numbers.get(mirror.id.as_str())?)))
            .collect();
        let most = numbers.values().filter(|number| (**number as usize) < MOST_MIRRORS).max();
        let sets = MirrorSets::new(most.map_or(1, |number| *number as usize + 1));
        let mut interner = SetInterner::new(&sets);
        let mut translated = Vec::with_capacity(self.sets.len());
        for words in &self.sets {
            let mut new = vec![0_u64; sets.capacity() / 64];
            for (old, number) in &numbers {
                let is_set = words.get(*old as usize / 64).is_some_and(|word| word >> (old % 64) & 1 != 0);
                if let Some(word) = new.get_mut(*number as usize / 64).filter(|_| is_set) {
                    *word |= 1 << (number % 64);
                }
            }
            translated.push(interner.intern(&sets, &new)?);
        }
        let state = |rank: usize| {
            let (set, age) = self.states.get(rank).copied().unwrap_or_default();
            PathState { set: translated.get(set as usize).copied().unwrap_or_default(), age }
        };
        let index = PresenceIndex::build(&self.catalogue.keys(), sets, state)?;
        let generation = Generation::new(self.number, self.made_at, self.source, self.catalogue, index);
        let mirrors = self.mirrors.into_iter();
        let exceptions = self.exceptions.into_iter();
        Ok(Knowledge {
            generation: Arc::new(generation),
            mirrors: mirrors.filter_map(|(old, mirror)| Some((*numbers.get(&old)?, mirror))).collect(),
            history: self.history,
            exceptions: exceptions
                .filter_map(|((key, old), lack)| Some(((key, *numbers.get(&old)?), lack)))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::catalogue;
    use crate::balancer::presence::generation::Location;

    #[test]
    fn knowledge_survives_a_restart_with_other_numbers() {
        let list = "a".repeat(64) + "  x\n" + &"b".repeat(64) + "  y/z\n";
        let catalogue = Arc::new(catalogue::parse(list.as_bytes()).unwrap());
        let generation = Generation::next(None, catalogue, [7; 32], 1, &[], SystemTime::UNIX_EPOCH).unwrap();
        let key = catalogue::key(b"/y/z");
        let mut writer = SetInterner::new(generation.index.sets());
        for mirror in [2, 5] {
            assert!(writer.set(&generation.index, key, mirror, true).unwrap());
        }
        let mut history = ProofHistory::default();
        let proof = Arc::<str>::from("/x");
        history.observe(&generation, [&proof].into_iter());
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let scan = Some(SeenScan { at, generation: 1, files: 1 });
        let known = |name: &str, proof, scan| KnownMirror { id: format!("http://{name}:80"), proof, scan };
        let two = known("two", Some(([9; 32], at)), None);
        let other = known("five", None, scan);
        let mirrors = HashMap::from([(2, two.clone()), (5, other.clone()), (6, known("gone", None, scan))]);
        let exceptions = vec![
            ((key, 2), Lack::OtherSize { found: 1, expected: 2 }),
            ((key, 5), Lack::Status(404)),
            ((key, 6), Lack::Suspended),
        ];
        let knowledge = Knowledge { generation: Arc::new(generation), mirrors, history, exceptions };

        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(folder.path()).unwrap();
        save(&state, &knowledge).unwrap();
        let earlier = load(&state).unwrap();
        let restored =
            earlier.restore(&HashMap::from([("http://two:80", 600), ("http://five:80", 0)])).unwrap();
        assert_eq!((restored.generation.number, restored.generation.source), (1, [7; 32]));
        let Some(Location::File(file)) = restored.generation.at(key) else { panic!("no file") };
        assert_eq!(file.path, b"/y/z");
        assert_eq!([0, 2, 5, 600].map(|mirror| file.holders.contains(mirror)), [false, true, true, false]);
        assert_eq!(restored.scanned(), [0]);
        assert_eq!(restored.mirrors, HashMap::from([(600, two), (0, other)]));
        let mut exceptions = restored.exceptions;
        exceptions.sort_by_key(|((_, mirror), _)| *mirror);
        let second = ((key, 600), Lack::OtherSize { found: 1, expected: 2 });
        assert_eq!(exceptions, [((key, 0), Lack::Status(404)), second]);
        assert_eq!(
            restored.history.compare(&proof, &[0xAA; 32]),
            super::super::proofs::ProofMatch::Generation(1)
        );

        // Any other content is refused.
        let whole = knowledge.encode();
        for length in 0..whole.len() {
            assert!(EarlierKnowledge::decode(&mut ByteReader(&whole[..length])).is_none(), "{length}");
        }
        state.write(FILE, VERSION, b"other").unwrap();
        assert!(load(&state).is_none());
        assert!(folder.path().join("catalogue.bin.damaged").exists());
    }
}
