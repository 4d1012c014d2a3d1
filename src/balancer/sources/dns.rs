//! Backends from DNS: the addresses of a name, or its SRV records.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::time::timeout;

use super::SourceError;
use super::merge::SourceAnswer;
use crate::balancer::backends::list::{self, MAX_WEIGHT};

/// The time limit of one query to one server.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// The time limit of a look-up.
const TIMEOUT: Duration = Duration::from_secs(8);
/// The longest time for which an answer is used without a new look-up.
const LONGEST_TTL: Duration = Duration::from_mins(5);
/// The tier of all records with a larger priority.
const MAX_TIER: u16 = u8::MAX as u16;

/// Looks up the backends of a name.
pub(super) struct DnsReader {
    name: String,
    /// The port of the servers; `None` for SRV records.
    port: Option<u16>,
    server: Option<SocketAddr>,
    /// The last IPv4 and IPv6 addresses, for the case that the look-up of one family fails.
    families: [Vec<IpAddr>; 2],
}

/// The records of one type with their time to live.
type Records = Result<(Vec<RData>, Duration), Absent>;

/// The reason why the records of a type are absent.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Absent {
    /// The name does not exist.
    NoName,
    /// The name has no record of this type.
    NoRecords,
    /// The look-up failed.
    Failed(String),
}

impl DnsReader {
    pub(super) fn new(name: String, port: Option<u16>, server: Option<SocketAddr>) -> Self {
        Self { name, port, server, families: Default::default() }
    }

    /// Returns the answer and the time for which it is valid.
    pub(super) async fn read(&mut self) -> Result<(SourceAnswer, Duration), SourceError> {
        // A resolver for each look-up follows changes of /etc/resolv.conf.
        let resolver = self.resolver().map_err(|error| SourceError::Dns(error.to_string()))?;
        let late = SourceError::TimedOut(TIMEOUT);
        let Some(port) = self.port else {
            let records =
                timeout(TIMEOUT, self.look_up(&resolver, RecordType::SRV)).await.map_err(|_| late)?;
            return services(records);
        };
        let both = async {
            tokio::join!(self.look_up(&resolver, RecordType::A), self.look_up(&resolver, RecordType::AAAA))
        };
        let (v4, v6) = timeout(TIMEOUT, both).await.map_err(|_| late)?;
        addresses([v4, v6], &mut self.families, port)
    }

    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let provider = TokioRuntimeProvider::default();
        let mut builder = match self.server {
            Some(server) => {
                let mut config = NameServerConfig::udp_and_tcp(server.ip());
                config.connections.iter_mut().for_each(|connection| connection.port = server.port());
                let config = ResolverConfig::from_name_servers(vec![config]);
                TokioResolver::builder_with_config(config, provider)
            }
            None => TokioResolver::builder_tokio()?,
        };
        let options = builder.options_mut();
        options.timeout = QUERY_TIMEOUT;
        options.cache_size = 0;
        builder.build()
    }

    async fn look_up(&self, resolver: &TokioResolver, kind: RecordType) -> Records {
        let found = resolver.lookup(self.name.as_str(), kind).await.map_err(|error| match error {
            NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
                ResponseCode::NXDomain => Absent::NoName,
                ResponseCode::NoError => Absent::NoRecords,
                code => Absent::Failed(code.to_string()),
            },
            error => Absent::Failed(error.to_string()),
        })?;
        if found.message().metadata.truncation {
            return Err(Absent::Failed("the answer is truncated".to_owned()));
        }
        let records = || found.answers().iter().filter(|record| record.record_type() == kind);
        let ttl = records().map(|record| record.ttl).min().ok_or(Absent::NoRecords)?;
        let data = records().map(|record| record.data.clone()).collect();
        Ok((data, Duration::from_secs(ttl.into()).min(LONGEST_TTL)))
    }
}

/// The backends of the addresses of both families. A family whose look-up failed keeps its `last` addresses.
fn addresses(
    families: [Records; 2],
    last: &mut [Vec<IpAddr>; 2],
    port: u16,
) -> Result<(SourceAnswer, Duration), SourceError> {
    match &families {
        [Err(Absent::NoName), Err(_)] | [Err(_), Err(Absent::NoName)] => {
            *last = Default::default();
            return Ok((SourceAnswer::default(), Duration::ZERO));
        }
        [Err(Absent::NoRecords), Err(Absent::NoRecords)] => return Err(SourceError::Empty),
        [Err(Absent::Failed(reason)), Err(_)] | [Err(_), Err(Absent::Failed(reason))] => {
            return Err(SourceError::Dns(reason.clone()));
        }
        _ => {}
    }
    let mut ttl = LONGEST_TTL;
    let mut answer = SourceAnswer::default();
    for (records, last) in families.into_iter().zip(last) {
        match records {
            Ok((records, valid_for)) => {
                ttl = ttl.min(valid_for);
                *last = records.iter().filter_map(RData::ip_addr).collect();
            }
            Err(Absent::Failed(_)) => ttl = Duration::ZERO,
            Err(Absent::NoName | Absent::NoRecords) => last.clear(),
        }
        for address in last.iter() {
            match list::from_words(&SocketAddr::new(*address, port).to_string(), std::iter::empty()) {
                Ok(backend) => answer.backends.push(backend),
                Err(_) => answer.skipped += 1,
            }
        }
    }
    Ok((answer, ttl))
}

/// The backends of SRV records: the priority is the tier. Weights beyond our largest one are scaled.
fn services(records: Records) -> Result<(SourceAnswer, Duration), SourceError> {
    let (records, ttl) = match records {
        Ok(records) => records,
        Err(Absent::NoName) => return Ok((SourceAnswer::default(), Duration::ZERO)),
        Err(Absent::NoRecords) => return Err(SourceError::Empty),
        Err(Absent::Failed(reason)) => return Err(SourceError::Dns(reason)),
    };
    let records: Vec<&SRV> = records
        .iter()
        .filter_map(|record| match record {
            RData::SRV(service) => Some(service),
            _ => None,
        })
        .collect();
    let heaviest = records.iter().map(|service| u32::from(service.weight)).max().unwrap_or_default();
    let mut answer = SourceAnswer::default();
    for SRV { priority, weight, port, target, .. } in records {
        let weight = u32::from(*weight) * MAX_WEIGHT / heaviest.max(MAX_WEIGHT);
        // A target "." announces that the service does not exist.
        let target = target.to_ascii();
        let address = format!("{}:{port}", target.trim_end_matches('.'));
        let attributes = [format!("weight={}", weight.max(1)), format!("tier={}", (*priority).min(MAX_TIER))];
        match list::from_words(&address, attributes.iter().map(String::as_str)) {
            Ok(backend) => answer.backends.push(backend),
            Err(_) => answer.skipped += 1,
        }
    }
    if answer.backends.is_empty() { Err(SourceError::Empty) } else { Ok((answer, ttl)) }
}

#[cfg(test)]
mod tests;
