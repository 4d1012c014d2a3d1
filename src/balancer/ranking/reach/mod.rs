//! Which servers a client may be sent to, and how near they are: `only=`, `not=`, the place of client and server, limits.
//!
//! A [`Reach`] belongs to a list and a geography. A [`ClientView`] has its sets of servers for one group of clients; each
//! worker keeps the views of recent clients ([`ClientViews`]). A [`TableReach`] adds the limits that depend on time, and on
//! the redirects so far. A list without such attributes and a balancer without a geography have no `Reach`.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::balancer::backends::rules::{AddressFamily, BackendRules, ClientRule};
use crate::balancer::geography::network::{Network, NetworkRanges};
use crate::balancer::geography::place::Band;
use crate::balancer::geography::{GeoPlace, Geography};
use crate::balancer::policy::{LINE_MIRRORS, MirrorSet, SetLine};
use crate::balancer::ranking::table::BackendEntry;

mod limits;
#[cfg(test)]
mod tests;

use limits::Allotment;
pub(crate) use limits::{Admitted, ServerUsage, TableReach};

/// The memory for the views of one worker, in bytes. Beyond it, all are made again.
const MOST_VIEW_BYTES: usize = 8 << 20;

/// The addresses of the names of servers.
pub(crate) type ServerAddresses = HashMap<String, IpAddr>;

/// The servers of a list with their places and rules.
#[derive(Debug)]
pub(crate) struct Reach {
    /// Differs from that of every other `Reach`.
    id: u64,
    geography: Option<Geography>,
    servers: Vec<ReachedServer>,
    /// The ranges of addresses in which all clients are in the same networks of the table and of the rules.
    ranges: NetworkRanges,
    /// The AS of servers and rules. Other ones do not matter.
    asns: HashSet<u32>,
    has_https_only: bool,
    has_families: bool,
    /// The number of lines of a set.
    lines: usize,
    /// The rule for busy servers.
    spill_factor: u32,
    /// The sizes of files that each server gets, by its number; empty if no server has such a limit.
    file_sizes: Box<[RangeInclusive<u64>]>,
    allotments: Box<[Allotment]>,
    /// The redirects so far, as the clock of the allotments.
    redirects: AtomicU64,
}

/// A server.
#[derive(Debug, Clone)]
struct ReachedServer {
    /// The number of its load record.
    number: u32,
    /// With its continent.
    place: GeoPlace,
    /// The entry of the table of networks that has its address.
    network: Option<usize>,
    rules: Option<Arc<BackendRules>>,
}

/// The properties of a client that decide which servers it may get.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReachClient {
    pub(crate) address: Option<IpAddr>,
    pub(crate) is_https: bool,
    /// The place that the client wants to be in.
    pub(crate) wanted: Option<GeoPlace>,
}

/// The clients that have the same view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ClientKey {
    /// According to the databases, or as wanted.
    place: GeoPlace,
    /// `None` for a client without an address, or with a wanted place.
    range: Option<usize>,
    is_https: bool,
    family: Option<AddressFamily>,
}

/// The known facts about a group of clients.
#[derive(Debug, Clone, Copy)]
struct ClientFacts {
    /// With its continent.
    place: GeoPlace,
    /// The entry of the table of networks.
    network: Option<usize>,
    /// An address of the group, as bits.
    example: Option<u128>,
    is_https: bool,
    family: Option<AddressFamily>,
}

impl ClientFacts {
    fn matches(&self, rule: &ClientRule) -> bool {
        match rule {
            ClientRule::Country(country) => self.place.country == Some(*country),
            ClientRule::Continent(continent) => self.place.continent == Some(*continent),
            ClientRule::As(number) => self.place.asn == Some(*number),
            ClientRule::Network(network) => self.example.is_some_and(|bits| network.contains_bits(bits)),
        }
    }
}

/// The reason why a server gets no request of a client, apart from its health.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Exclusion {
    /// `only=` does not name the client.
    NotAmongOnly,
    /// `not=` names the client.
    Not(ClientRule),
    /// It gets only clients that use https.
    HttpsOnly,
    /// It gets only clients of this family.
    Family(AddressFamily),
    /// It gets only smaller or larger files.
    FileSize { size: u64, min: u64, max: u64 },
    /// It is not the time of its `hours=`.
    Hours,
    /// It has got the redirects of this second.
    Redirects(u64),
    /// It has got the bytes of this month.
    MonthlyBytes(u64),
}

impl fmt::Display for Exclusion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAmongOnly => formatter.write_str("the client is not among those of only="),
            Self::Not(rule) => write!(formatter, "the client is among those of not={rule}"),
            Self::HttpsOnly => formatter.write_str("https_only: the client does not use https"),
            Self::Family(family) => write!(formatter, "family={family}: the client does not use IPv{family}"),
            Self::FileSize { size, min, .. } if size < min => {
                write!(formatter, "min_file_size={min}: the file has {size} bytes")
            }
            Self::FileSize { size, max, .. } => {
                write!(formatter, "max_file_size={max}: the file has {size} bytes")
            }
            Self::Hours => formatter.write_str("it is not the time of its hours="),
            Self::Redirects(most) => {
                write!(formatter, "max_redirects={most}: it has got them in this second")
            }
            Self::MonthlyBytes(most) => {
                write!(formatter, "monthly_bytes={most}: it has got them in this month")
            }
        }
    }
}

impl Reach {
    /// The reach of the servers in `entries`; `None` if each server may get every client, and no place is known.
    #[must_use]
    pub(crate) fn new(
        id: u64,
        entries: &[BackendEntry],
        geography: Option<&Geography>,
        addresses: &ServerAddresses,
        spill_factor: u32,
    ) -> Option<Self> {
        if geography.is_none() && entries.iter().all(|entry| entry.backend.rules().is_none()) {
            return None;
        }
        let server = |entry: &BackendEntry| {
            let rules = entry.backend.rules().cloned();
            let host = entry.backend.host();
            let address = host.parse().ok().or_else(|| addresses.get(host).copied());
            let known = geography.zip(address).map(|(geography, address)| geography.of(address));
            let own = rules.as_ref().map(|rules| rules.place).unwrap_or_default();
            ReachedServer {
                number: entry.load.number(),
                place: own.or(&known.unwrap_or_default()).with_continent(),
                network: geography.zip(address).and_then(|(it, address)| Some(it.table.find(address)?.0)),
                rules,
            }
        };
        let servers: Vec<ReachedServer> = entries.iter().map(server).collect();
        let rules = || servers.iter().filter_map(|server| server.rules.as_deref());
        let clients = || rules().flat_map(|rules| rules.only.iter().chain(&rules.not));
        let of_rules = clients().filter_map(|rule| match rule {
            ClientRule::Network(network) => Some(*network),
            _ => None,
        });
        let of_table = geography.iter().flat_map(|geography| geography.table.networks().iter().copied());
        let networks: Vec<Network> = of_table.chain(of_rules).collect();
        let asns = clients().filter_map(|rule| match rule {
            ClientRule::As(number) => Some(*number),
            _ => None,
        });
        let limits_sizes =
            rules().any(|rules| rules.min_file_size.is_some() || rules.max_file_size.is_some());
        let numbers = servers.iter().map(|server| server.number as usize + 1).max().unwrap_or(1);
        Some(Self {
            id,
            ranges: NetworkRanges::new(&networks),
            asns: asns.chain(servers.iter().filter_map(|server| server.place.asn)).collect(),
            has_https_only: rules().any(|rules| rules.https_only),
            has_families: rules().any(|rules| rules.family.is_some()),
            file_sizes: if limits_sizes { file_sizes(&servers, numbers) } else { Box::default() },
            lines: numbers.div_ceil(LINE_MIRRORS),
            spill_factor,
            allotments: (0..numbers).map(|_| Allotment::default()).collect(),
            redirects: AtomicU64::new(0),
            geography: geography.cloned(),
            servers,
        })
    }

    /// Whether places are known, so that near servers are preferred.
    #[must_use]
    pub(crate) fn has_geography(&self) -> bool {
        self.geography.is_some()
    }

    fn key(&self, client: &ReachClient) -> ClientKey {
        let address = client.address;
        let known =
            || self.geography.as_ref().zip(address).map(|(known, address)| known.of_databases(address));
        let place = client.wanted.or_else(known).unwrap_or_default();
        ClientKey {
            place: GeoPlace { asn: place.asn.filter(|asn| self.asns.contains(asn)), ..place },
            range: address.filter(|_| client.wanted.is_none()).map(|address| self.ranges.range(address)),
            is_https: self.has_https_only && client.is_https,
            family: address.filter(|_| self.has_families).map(AddressFamily::of),
        }
    }

    fn facts(&self, key: &ClientKey) -> ClientFacts {
        let example = key.range.and_then(|range| self.ranges.example(range));
        let address = example.map(|bits| Ipv6Addr::from_bits(bits).into());
        let own = self.geography.as_ref().zip(address).and_then(|(known, address)| known.table.find(address));
        let (network, own) = own.unzip();
        ClientFacts {
            place: own.copied().unwrap_or_default().or(&key.place).with_continent(),
            network,
            example,
            is_https: key.is_https,
            family: key.family,
        }
    }

    /// The place of a client, as far as it matters, with its continent.
    #[must_use]
    pub(crate) fn place_of(&self, client: &ReachClient) -> GeoPlace {
        let place = self.facts(&self.key(client)).place;
        let asn = self.geography.as_ref().zip(client.address).and_then(|(it, address)| it.of(address).asn);
        GeoPlace { asn: place.asn.or(asn.filter(|_| client.wanted.is_none())), ..place }
    }

    /// The place of each server by its number, and its band for a client, or the reason why the client cannot get it.
    #[must_use]
    pub(crate) fn judge(&self, client: &ReachClient) -> HashMap<u32, (GeoPlace, Result<Band, Exclusion>)> {
        let facts = self.facts(&self.key(client));
        self.servers.iter().map(|server| (server.number, (server.place, server.band(&facts)))).collect()
    }

    /// The view of a group of clients.
    fn view(&self, key: &ClientKey) -> ClientView {
        let facts = self.facts(key);
        let bands: Vec<(Band, u32)> = self
            .servers
            .iter()
            .filter_map(|server| Some((server.band(&facts).ok()?, server.number)))
            .collect();
        let mut sets: Vec<Box<[SetLine]>> = Vec::new();
        let mut latest = 0;
        for most in Band::ALL {
            let within = || bands.iter().filter(|(band, _)| *band <= most).map(|(_, number)| *number);
            let count = within().count();
            // A band without a server of its own is skipped.
            if count > latest {
                sets.push(limits::set(self.lines, within()));
                latest = count;
            }
        }
        ClientView { sets }
    }
}

fn file_sizes(servers: &[ReachedServer], numbers: usize) -> Box<[RangeInclusive<u64>]> {
    let mut sizes = vec![0..=u64::MAX; numbers];
    for server in servers {
        if let (Some(rules), Some(sizes)) = (&server.rules, sizes.get_mut(server.number as usize)) {
            *sizes = rules.min_file_size.unwrap_or(0)..=rules.max_file_size.unwrap_or(u64::MAX);
        }
    }
    sizes.into()
}

impl ReachedServer {
    fn band(&self, client: &ClientFacts) -> Result<Band, Exclusion> {
        if let Some(rules) = &self.rules {
            if !rules.only.is_empty() && !rules.only.iter().any(|rule| client.matches(rule)) {
                return Err(Exclusion::NotAmongOnly);
            }
            if let Some(rule) = rules.not.iter().find(|rule| client.matches(rule)) {
                return Err(Exclusion::Not(*rule));
            }
            if rules.https_only && !client.is_https {
                return Err(Exclusion::HttpsOnly);
            }
            if let Some(family) = rules.family.filter(|family| client.family.is_some_and(|it| it != *family))
            {
                return Err(Exclusion::Family(family));
            }
        }
        let is_same_network = client.network.is_some() && client.network == self.network;
        Ok(Band::between(&client.place, &self.place, is_same_network))
    }
}

/// The servers that a group of clients may get, in sets that grow with the distance. Each set has the servers of the sets
/// before.
#[derive(Debug)]
pub(crate) struct ClientView {
    sets: Vec<Box<[SetLine]>>,
}

impl ClientView {
    /// The sets of near servers, the nearest one first, without the set of all.
    pub(crate) fn near(&self) -> impl Iterator<Item = MirrorSet<'_>> {
        let near = self.sets.split_last().map(|(_, near)| near).unwrap_or_default();
        near.iter().map(|lines| MirrorSet::new(lines))
    }

    /// All servers that the clients may get.
    #[must_use]
    pub(crate) fn allowed(&self) -> MirrorSet<'_> {
        self.sets.last().map(|lines| MirrorSet::new(lines)).unwrap_or_default()
    }

    /// A number that grows with the distance of a server; for an order.
    #[must_use]
    pub(crate) fn rank(&self, number: u32) -> usize {
        self.near().take_while(|near| !near.contains(number)).count()
    }

    fn bytes(&self) -> usize {
        self.sets.iter().map(|lines| size_of_val(&**lines) + size_of::<Self>()).sum()
    }
}

/// The views of the recent clients of a worker.
#[derive(Debug, Default)]
pub(crate) struct ClientViews {
    /// The `Reach` of the views.
    id: u64,
    views: HashMap<ClientKey, Rc<ClientView>>,
    bytes: usize,
}

impl ClientViews {
    /// The view of a client.
    #[must_use]
    pub(crate) fn of(&mut self, reach: &Reach, client: &ReachClient) -> Rc<ClientView> {
        if self.id != reach.id || self.bytes > MOST_VIEW_BYTES {
            *self = Self { id: reach.id, ..Self::default() };
        }
        let key = reach.key(client);
        if let Some(known) = self.views.get(&key) {
            return Rc::clone(known);
        }
        let view = Rc::new(reach.view(&key));
        self.bytes += view.bytes() + size_of::<ClientKey>();
        self.views.insert(key, Rc::clone(&view));
        view
    }
}
