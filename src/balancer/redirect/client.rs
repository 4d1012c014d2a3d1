//! The client of a request. Its connection may end at a proxy in front of the balancer.
//!
//! `X-Forwarded-For` and `X-Forwarded-Proto` are used only if the connection comes from a trusted proxy, because any
//! client can send them. Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use crate::balancer::geography::network::{Network, NotANetwork};
use crate::balancer::policy;
use crate::balancer::ranking::table::Needs;

/// The properties of the client on which the choice of a backend depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Client {
    /// Its address; `None` for a client on a Unix socket.
    pub(super) address: Option<IpAddr>,
    /// Whether it uses https.
    pub(super) is_https: bool,
}

impl Client {
    /// The client of a request with these header lines. `peer` is the other end of the connection, `is_https` whether the
    /// connection uses TLS.
    ///
    /// The address is the last one of `X-Forwarded-For` that is not a trusted proxy: every proxy appends the address of its
    /// peer, and the client may have sent the words before. Words before one that is not an address are ignored. The scheme
    /// is the first word of `X-Forwarded-Proto`, which the outermost proxy wrote.
    pub(super) fn new<'a>(
        peer: Option<IpAddr>,
        is_https: bool,
        trusted: &TrustedProxies,
        lines: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Self {
        let mut client = Self { address: peer.map(|peer| peer.to_canonical()), is_https };
        if !trusted.contains(client.address.unwrap_or(Ipv4Addr::LOCALHOST.into())) {
            return client;
        }
        let mut proxy = None;
        let mut forwarded = None;
        let mut scheme = None;
        for (name, value) in lines {
            if name.eq_ignore_ascii_case("x-forwarded-for") {
                for word in value.split(|byte| *byte == b',') {
                    match address(word) {
                        None => (proxy, forwarded) = (None, None),
                        Some(address) if trusted.contains(address) => proxy = proxy.or(Some(address)),
                        Some(address) => forwarded = Some(address),
                    }
                }
            } else if scheme.is_none() && name.eq_ignore_ascii_case("x-forwarded-proto") {
                scheme = value.split(|byte| *byte == b',').next().map(<[u8]>::trim_ascii);
            }
        }
        client.address = forwarded.or(proxy).or(client.address);
        if let Some(scheme) = scheme {
            client.is_https = scheme.eq_ignore_ascii_case(b"https");
        }
        client
    }

    /// The needs of this client.
    pub(super) fn needs(&self) -> Needs {
        Needs::new(self.is_https, self.address.is_some_and(|address| address.is_ipv4()))
    }

    /// A hash of the network of the client, /24 or /48, for the memory of failures; `None` for a client on a Unix socket.
    pub(super) fn network(&self) -> Option<u64> {
        Some(match self.address? {
            IpAddr::V4(address) => policy::digest(&address.octets()[..3]),
            IpAddr::V6(address) => policy::digest(&address.octets()[..6]),
        })
    }
}

/// Parses a word of `X-Forwarded-For`: an address with an optional port.
fn address(word: &[u8]) -> Option<IpAddr> {
    let word = std::str::from_utf8(word).ok()?.trim();
    let plain = word.strip_prefix('[').and_then(|word| word.strip_suffix(']')).unwrap_or(word);
    let address = plain.parse().or_else(|_| word.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// The networks of proxies whose `X-Forwarded-...` headers are used. A Unix socket counts as 127.0.0.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TrustedProxies(Box<[Network]>);

impl TrustedProxies {
    /// Whether `address` is in one of the networks.
    #[must_use]
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

impl FromStr for TrustedProxies {
    type Err = NotANetwork;

    /// Parses addresses and networks, separated by commas. An empty text trusts no proxy.
    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        Ok(Self(words.map(str::parse).collect::<Result<_, _>>()?))
    }
}

#[cfg(test)]
mod tests;
