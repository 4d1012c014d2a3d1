//! Networks as prefixes of addresses, and the longest prefix that contains an address. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// The prefix length of IPv4 addresses that are mapped to IPv6.
const MAPPED: u32 = 96;

/// A network: the first `length` bits of `address`, of which the others are 0. An IPv4 address is mapped to IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    address: u128,
    length: u32,
}

impl Network {
    /// The network of the addresses that share the first `length` bits with `address`, at most 32 for IPv4.
    #[must_use]
    pub fn new(address: IpAddr, length: u32) -> Option<Self> {
        let most: u32 = if address.is_ipv4() { 32 } else { 128 };
        let length = most.checked_sub(length).map(|rest| 128 - rest)?;
        Some(Self { address: bits(address) & !host_bits(length), length })
    }

    /// Whether the network has the address.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.contains_bits(bits(address))
    }

    /// The same for the bits of an address.
    #[must_use]
    pub(crate) fn contains_bits(self, bits: u128) -> bool {
        bits & !host_bits(self.length) == self.address
    }

    fn last(self) -> u128 {
        self.address | host_bits(self.length)
    }
}

/// The bits after the first `length` ones.
fn host_bits(length: u32) -> u128 {
    u128::MAX.checked_shr(length).unwrap_or(0)
}

/// The bits of an address. An IPv4 address is mapped to IPv6.
#[must_use]
pub(crate) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = Ipv6Addr::from_bits(self.address);
        match (address.to_ipv4_mapped(), self.length.checked_sub(MAPPED)) {
            (Some(address), Some(length)) => write!(formatter, "{address}/{length}"),
            _ => write!(formatter, "{address}/{}", self.length),
        }
    }
}

/// The error for a word that is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not a network; write an address or a network, such as ::1 or 10.0.0.0/8", .0.escape_debug())]
pub struct NotANetwork(String);

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(word: &str) -> Result<Self, NotANetwork> {
        parse(word).ok_or_else(|| NotANetwork(word.chars().take(60).collect()))
    }
}

fn parse(word: &str) -> Option<Network> {
    let (address, length) =
        word.split_once('/').map_or((word, None), |(address, length)| (address, Some(length)));
    let address: IpAddr = address.parse().ok()?;
    let length = match length {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        Some(_) => return None,
        None if address.is_ipv4() => 32,
        None => 128,
    };
    Network::new(address, length)
}

/// The owner of the addresses that no network has.
const NO_OWNER: u32 = u32::MAX;

/// All addresses, divided into ranges at the borders of networks. The addresses of a range are in the same networks.
#[derive(Debug)]
pub struct NetworkRanges {
    /// The first address of each range, in ascending order. The first one is 0.
    starts: Box<[u128]>,
    /// The smallest network of each range.
    owners: Box<[u32]>,
}

impl NetworkRanges {
    /// The ranges of these networks. Of equal networks, the first one owns the addresses.
    #[must_use]
    pub fn new(networks: &[Network]) -> Self {
        let mut order: Vec<(u32, Network)> = (0..).zip(networks.iter().copied()).collect();
        // A network precedes those that it contains.
        order.sort_by_key(|(_, network)| (network.address, network.length));
        order.dedup_by_key(|(_, network)| *network);
        let mut ranges: Vec<(u128, u32)> = vec![(0, NO_OWNER)];
        // The networks that contain the current address, the smallest one last.
        let mut open: Vec<(u128, u32)> = Vec::new();
        for (owner, network) in order {
            close(&mut open, &mut ranges, Some(network.address));
            begin(&mut ranges, network.address, owner);
            open.push((network.last(), owner));
        }
        close(&mut open, &mut ranges, None);
        let (starts, owners): (Vec<_>, Vec<_>) = ranges.into_iter().unzip();
        Self { starts: starts.into(), owners: owners.into() }
    }

    /// The number of the range that has this address.
    #[must_use]
    #[inline]
    pub fn range(&self, address: IpAddr) -> usize {
        let bits = bits(address);
        self.starts.partition_point(|start| *start <= bits).saturating_sub(1)
    }

    /// The index of the smallest network that has the addresses of a range.
    #[must_use]
    pub fn owner(&self, range: usize) -> Option<usize> {
        self.owners.get(range).filter(|owner| **owner != NO_OWNER).map(|owner| *owner as usize)
    }

    /// An address of a range, as bits.
    #[must_use]
    pub fn example(&self, range: usize) -> Option<u128> {
        self.starts.get(range).copied()
    }
}

/// Ends the networks whose last address is before `address`, or all.
fn close(open: &mut Vec<(u128, u32)>, ranges: &mut Vec<(u128, u32)>, address: Option<u128>) {
    while let Some((last, _)) = open.pop_if(|(last, _)| address.is_none_or(|address| *last < address)) {
        if let Some(next) = last.checked_add(1) {
            begin(ranges, next, open.last().map_or(NO_OWNER, |(_, owner)| *owner));
        }
    }
}

fn begin(ranges: &mut Vec<(u128, u32)>, start: u128, owner: u32) {
    ranges.pop_if(|(last, _)| *last == start);
    ranges.push((start, owner));
}
