//! Measures the index of the files on mirrors: memory, build, look-ups and updates with 10 million paths and 500 mirrors, of
//! which 200 are partial and 40 lag behind.
//!
//! `cargo bench --bench presence [-- PATHS]`

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed benchmark may panic")]

use std::hint::black_box;
use std::io::Write as _;
use std::time::Duration;

use fingerpost::internals::policy::digest;
use fingerpost::internals::presence::{MirrorSets, OLD, PathState, PresenceIndex, SetInterner};

/// The processor time of this thread, which other processes do not affect.
struct CpuTime(Duration);

impl CpuTime {
    fn now() -> Self {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Self(Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap()))
    }

    fn elapsed(&self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

const MIRRORS: usize = 500;
const PARTIAL: u64 = 200;
const LAGGING: u64 = 40;
const DIRECTORIES: u64 = 8_000;

/// A reproducible number that looks random.
fn spread(number: u64) -> u64 {
    digest(&number.to_le_bytes())
}

/// The path of a file; its directory is `number % DIRECTORIES`.
fn put_path(number: u64, path: &mut Vec<u8>) {
    path.clear();
    // Writing to memory cannot fail.
    let _ = write!(path, "/pool/main/{}/package-{number}_1.0_amd64.deb", number % DIRECTORIES);
}

/// The mirrors that lack a file: partial mirrors lack one of three directories, lagging ones the newest files.
fn lacking(directory: u64, is_new: bool) -> [u64; 8] {
    let mut words = [0_u64; 8];
    for mirror in 0..PARTIAL + LAGGING {
        let lacks =
            if mirror < PARTIAL { spread(directory * 1009 + mirror).is_multiple_of(3) } else { is_new };
        words[mirror as usize / 64] |= u64::from(lacks) << (mirror % 64);
    }
    words
}

fn main() {
    let paths: u64 = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(10_000_000);
    let is_new = |number: u64| number.is_multiple_of(97);
    let masks: Vec<[[u64; 8]; 2]> =
        (0..DIRECTORIES).map(|directory| [lacking(directory, false), lacking(directory, true)]).collect();
    let mut path = Vec::new();

    let start = CpuTime::now();
    let mut keys: Vec<(u64, u32)> = Vec::with_capacity(paths as usize);
    for number in 0..paths {
        put_path(number, &mut path);
        keys.push((digest(&path), number as u32));
    }
    let hashed = start.elapsed();
    keys.sort_unstable();
    let (keys, numbers): (Vec<u64>, Vec<u32>) = keys.into_iter().unzip();
    let sets = MirrorSets::new(MIRRORS);
    let mut interner = SetInterner::new(&sets);
    let states: Vec<u32> = numbers
        .iter()
        .map(|number| {
            let number = u64::from(*number);
            let words = &masks[(number % DIRECTORIES) as usize][usize::from(is_new(number))];
            interner.intern(&sets, words).unwrap()
        })
        .collect();
    let index = PresenceIndex::build(&keys, sets, |rank| PathState { set: states[rank], age: OLD }).unwrap();
    let built = start.elapsed();
    let bytes = index.bytes();
    println!("{paths} paths, {MIRRORS} mirrors, {} distinct sets", index.sets().count());
    println!(
        "build: {:.2} s, of which {:.2} s to format and hash the paths",
        built.as_secs_f64(),
        hashed.as_secs_f64()
    );
    println!("memory: {:.1} bytes per path", bytes as f64 / paths as f64);
    drop((keys, states, numbers));

    let usable =
        [u64::MAX, 0x7fff_ffff_ffff_fff0, u64::MAX, u64::MAX, u64::MAX, u64::MAX, u64::MAX, 0xf_ffff];
    let look_up = |path: &[u8]| -> u32 {
        let Some(found) = index.find(digest(path)) else { return 0 };
        // In this direction, the iterators become one loop.
        let mut usable = usable.iter();
        let next = |lacking: u64| (usable.next().unwrap_or(&0) & !lacking).count_ones();
        found.lacking.words().map(next).sum()
    };
    for (name, distinct) in [("hot", 64_u64), ("cold", paths)] {
        let count = 2_000_000_u64;
        let wanted: Vec<u8> = {
            let mut all = Vec::new();
            for number in 0..count {
                put_path(spread(number % distinct) % paths, &mut path);
                all.push(path.len() as u8);
                all.extend_from_slice(&path);
            }
            all
        };
        let start = CpuTime::now();
        let (mut rest, mut sum) = (&wanted[..], 0_u64);
        while let Some((length, after)) = rest.split_first() {
            let (path, after) = after.split_at(usize::from(*length));
            sum += u64::from(look_up(path));
            rest = after;
        }
        let each = start.elapsed().as_nanos() as f64 / count as f64;
        println!(
            "look-up of a path with mask and count, {name}: {each:.0} ns (mean of {:.0} mirrors)",
            sum as f64 / count as f64
        );
        black_box(sum);
    }
    // 1 000 directories disappear, each from one mirror.
    let lost: Vec<u64> = (0..1000)
        .flat_map(|lost| {
            let directory = spread(lost) % DIRECTORIES;
            (0..paths / DIRECTORIES).map(move |file| directory + file * DIRECTORIES)
        })
        .collect();
    let lost: Vec<u64> = lost
        .into_iter()
        .map(|number| {
            put_path(number, &mut path);
            digest(&path)
        })
        .collect();
    let start = CpuTime::now();
    for (number, key) in (0..).zip(&lost) {
        let mirror = 300 + number / (paths / DIRECTORIES) % 100;
        assert!(interner.set(&index, *key, mirror as u32, true).unwrap());
    }
    let each = start.elapsed().as_nanos() as f64 / lost.len() as f64;
    println!("update: {each:.0} ns, {} distinct sets after {} updates", index.sets().count(), lost.len());
}
