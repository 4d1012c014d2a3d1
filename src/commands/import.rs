//! `fingerpost import`: converts the mirrors of another program to a list of servers.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::path::PathBuf;
use std::{fs, io};

use super::mirrorbits::{self, MirrorbitsConfig, MirrorbitsMirror};
use crate::cli::ImportArguments;
use crate::configuration;
use crate::engine::{
    EngineAddress, EngineClient, EngineError, EngineSettings, EngineUrlError, FleetSettings,
};
use crate::http::client::Resolver;
use crate::telemetry;

/// The address of Redis if the configuration of mirrorbits has none.
const DEFAULT_REDIS: &str = "127.0.0.1:6379";

/// An error that prevents the conversion.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The configuration is not one of mirrorbits.
    #[error("{} is not a configuration of mirrorbits: {reason}", path.display())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// The error of the parser.
        reason: String,
    },
    /// The address of Redis is invalid.
    #[error("cannot use the address of Redis (--redis, or RedisAddress in the configuration)")]
    Address(#[from] EngineUrlError),
    /// Redis does not answer.
    #[error("cannot read the mirrors from Redis")]
    Redis(#[from] EngineError),
    /// There is nothing to convert.
    #[error("{0} has no mirror of mirrorbits; name the right database, as in redis://host:6379/1")]
    Empty(String),
}

/// Runs `fingerpost import`: writes the list to standard output, and a line for each feature without an equivalent to standard
/// error.
pub(super) fn command(arguments: &ImportArguments) -> Result<(), Box<dyn Error>> {
    let ImportArguments { config, redis, list, .. } = arguments;
    let read = |path: &PathBuf| {
        fs::read_to_string(path).map_err(|source| ImportError::Unreadable { path: path.clone(), source })
    };
    let configuration = match config {
        None => MirrorbitsConfig::default(),
        Some(path) => MirrorbitsConfig::parse(&read(path)?)
            .map_err(|reason| ImportError::Configuration { path: path.clone(), reason })?,
    };
    let (mirrors, place) = if let Some(path) = list {
        (mirrorbits::parse_export(&read(path)?), path.display().to_string())
    } else {
        let address = redis.clone().unwrap_or_else(|| {
            let address = configuration.redis_address.as_deref().unwrap_or(DEFAULT_REDIS);
            format!("redis://{address}/{}", configuration.redis_database)
        });
        let engine = engine(&address, &configuration)?;
        (actix::System::new().block_on(from_redis(engine))?, address)
    };
    if mirrors.is_empty() {
        return Err(ImportError::Empty(place).into());
    }
    let converted = mirrorbits::convert(&configuration, &mirrors);
    for remark in &converted.remarks {
        tracing::warn!("{remark}");
    }
    Ok(telemetry::print(converted.list.as_bytes())?)
}

fn engine(address: &str, configuration: &MirrorbitsConfig) -> Result<EngineSettings, Box<dyn Error>> {
    let address = address.parse::<EngineAddress>().map_err(ImportError::from)?;
    let password = configuration.redis_password.clone().filter(|password| !password.is_empty());
    let flags = password.map(|password| ("fleet.password", password)).into_iter().collect();
    let fleet = configuration::load(None, flags, |settings| FleetSettings::try_from(settings.fleet))?;
    Ok(fleet.settings.at(address))
}

/// Reads the hash `MIRRORS` (names by number), and the hash `MIRROR_<number>` of each mirror.
async fn from_redis(settings: EngineSettings) -> Result<Vec<MirrorbitsMirror>, ImportError> {
    let mut engine = EngineClient::new(settings, Resolver::default());
    let names: BTreeMap<u64, String> = engine.run(redis::cmd("HGETALL").arg("MIRRORS")).await?;
    let mut mirrors = Vec::new();
    for (number, name) in names {
        let key = format!("MIRROR_{number}");
        let fields: HashMap<String, String> = engine.run(redis::cmd("HGETALL").arg(key)).await?;
        mirrors.push(MirrorbitsMirror::of_fields(name, fields));
    }
    Ok(mirrors)
}
