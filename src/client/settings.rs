//! Validates the flags and converts them to settings.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use url::Url;

use super::address::{Credentials, masked};
use super::checksum::Checksum;
use super::download::{
    Clobber, DownloadJob, FileOrigin, Naming, Options, Output, Reporting, Resume, Unavailable,
};
use super::error::DownloadError;
use super::limit::RateLimiter;
use super::metalink::{self, MetalinkFile};
use super::naming;
use super::plan::PlanSettings;
use super::sink::{Destination, Durability, check_descriptor, destination};
use crate::cli::{GetArguments, ProgressMode};
use crate::http::client::proxy::ProxyRules;
use crate::http::client::{Family, TransportSettings};
use crate::http::tls::{Trust, Verification};
use crate::open_files;

/// Maximum size of a list of addresses, in bytes.
const MAX_LIST_BYTES: u64 = 64 << 20;

/// Settings of one run of `fingerpost get`.
#[derive(Debug)]
pub(super) struct Settings {
    /// The addresses or Metalink files, in order, as given.
    pub(super) inputs: Vec<String>,
    /// Destination of the files.
    pub(super) output: Output,
    pub(super) checksum: Option<Checksum>,
    pub(super) options: Options,
    pub(super) transport: TransportSettings,
    pub(super) limit_rate: Option<u64>,
    /// Maximum number of concurrent downloads.
    pub(super) jobs: usize,
    pub(super) show: Show,
}

/// Settings of the display.
#[derive(Debug, Clone, Copy)]
pub(super) struct Show {
    pub(super) progress: Option<ProgressMode>,
    pub(super) text: Text,
    pub(super) explanations: Explanations,
    pub(super) reports: Reports,
}

/// Destination of redirects and error pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    /// Standard output, if it is free.
    Output,
    /// Standard error, if standard output carries the file or reports.
    Error,
    /// They are not shown.
    Nowhere,
}

/// Whether the choice of servers is explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Explanations {
    Shown,
    Hidden,
}

/// Whether a JSON object reports the result of each file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reports {
    Json,
    None,
}

impl Settings {
    pub(super) fn new(arguments: &GetArguments) -> Result<Self, DownloadError> {
        let mut inputs = arguments.urls.clone();
        if let Some(path) = &arguments.input_file {
            inputs.extend(addresses(&read_list(path)?));
        }
        let output = match (&arguments.output, &arguments.output_dir) {
            (Some(_), _) if inputs.len() > 1 => {
                return Err(usage("-o names one file, but there are several addresses: use --output-dir"));
            }
            (Some(path), _) if path == Path::new("-") => Output::Descriptor(1),
            (Some(path), _) => match destination(path) {
                Destination::Descriptor(number) => Output::Descriptor(number),
                Destination::Path(_) => Output::File(path.clone()),
            },
            (None, folder) => Output::Folder(folder.clone().unwrap_or_default()),
        };
        if let Output::Descriptor(number) = output {
            check_descriptor(number)?;
        }
        if output == Output::Descriptor(1) && arguments.json {
            return Err(usage("--json and -o - both use standard output"));
        }
        let checksum = arguments.checksum.as_deref().map(parse_checksum).transpose()?;
        if checksum.is_some() && inputs.len() > 1 {
            return Err(usage("--checksum applies to one file, but there are several addresses"));
        }
        let text = match output {
            _ if arguments.silent || inputs.len() > 1 => Text::Nowhere,
            Output::Descriptor(1) => Text::Error,
            _ if arguments.json => Text::Error,
            _ => Text::Output,
        };
        let limit_rate = arguments.limit_rate.map(|ByteSize(rate)| rate);
        if limit_rate == Some(0) {
            return Err(usage("--limit-rate must be above 0"));
        }
        Ok(Self {
            inputs,
            output,
            checksum,
            options: options(arguments)?,
            transport: transport(arguments, limit_rate),
            limit_rate,
            jobs: open_files::parallel_downloads(usize::from(arguments.jobs)),
            show: Show {
                progress: if arguments.silent { Some(ProgressMode::None) } else { arguments.progress },
                text,
                explanations: if arguments.explain { Explanations::Shown } else { Explanations::Hidden },
                reports: if arguments.json { Reports::Json } else { Reports::None },
            },
        })
    }

    /// The downloads of one input: all files of a Metalink file, or else one address.
    pub(super) fn jobs_of(&self, input: &str) -> Result<Vec<DownloadJob>, DownloadError> {
        let is_metalink = [".meta4", ".metalink"].iter().any(|ending| input.ends_with(ending));
        if is_metalink && !input.contains("://") {
            let text = read_list(Path::new(input))?;
            return self.described_jobs(metalink::parse(&text)?);
        }
        let mut url = parse_url(input)?;
        let credentials = Credentials::take(&mut url).into_iter().collect();
        let must_name = matches!(self.output, Output::Folder(_)) && self.options.naming == Naming::Address;
        if must_name && url.path().ends_with('/') {
            return Err(invalid(input, "it names no file: choose a name with -o"));
        }
        let (origin, output) = (FileOrigin::Address(url), self.output.clone());
        Ok(vec![DownloadJob { origin, output, checksum: self.checksum, credentials }])
    }

    /// The downloads of all files of a Metalink.
    pub(super) fn described_jobs(&self, files: Vec<MetalinkFile>) -> Result<Vec<DownloadJob>, DownloadError> {
        if files.len() > 1 && !matches!(self.output, Output::Folder(_)) {
            return Err(usage("-o names one file, but the Metalink describes several: use --output-dir"));
        }
        let job = |mut file: MetalinkFile| DownloadJob {
            output: self.output.clone(),
            credentials: file.urls.iter_mut().filter_map(Credentials::take).collect(),
            origin: FileOrigin::Mirrors {
                name: file.name,
                urls: file.urls,
                identity: file.identity,
                pieces: file.pieces,
                unchecked: file.unchecked,
            },
            checksum: self.checksum,
        };
        Ok(files.into_iter().map(job).collect())
    }
}

fn usage(text: &str) -> DownloadError {
    DownloadError::Usage(text.to_owned())
}

fn options(arguments: &GetArguments) -> Result<Options, DownloadError> {
    let defaults = PlanSettings::default();
    let plan = PlanSettings {
        max_sources: usize::from(arguments.sources),
        parallel_size: arguments.parallel_size.as_u64(),
        parallel_time: arguments.parallel_time,
        head_after: arguments.head_after,
        hedge_after: arguments.hedge_after,
        drop_after: arguments.drop_after,
        max_failures: arguments.retry.unwrap_or(defaults.max_failures),
        backoff_base: arguments.retry_delay,
        ..defaults
    };
    Ok(Options {
        plan,
        max_redirects: arguments.max_redirs,
        headers: arguments.headers.iter().map(|line| parse_header(line)).collect::<Result<_, _>>()?,
        resume: if arguments.no_resume { Resume::No } else { Resume::Yes },
        clobber: if arguments.no_clobber { Clobber::Never } else { Clobber::Replace },
        unavailable: if arguments.wait { Unavailable::Wait } else { Unavailable::Fail },
        retry_first: arguments.retry.is_some_and(|retries| retries > 0),
        retry_until: arguments.retry_max_time,
        max_time: arguments.max_time,
        checkpoint_every: arguments.checkpoint_interval.max(Duration::from_millis(1)),
        durability: if arguments.no_sync { Durability::Cached } else { Durability::Synced },
        reporting: if arguments.json { Reporting::Always } else { Reporting::Compare },
        naming: if arguments.remote_header_name { Naming::Server } else { Naming::Address },
    })
}

fn transport(arguments: &GetArguments, limit_rate: Option<u64>) -> TransportSettings {
    let defaults = TransportSettings::default();
    TransportSettings {
        connect_timeout: arguments.connect_timeout,
        family: match (arguments.ipv4, arguments.ipv6) {
            (true, _) => Family::V4,
            (_, true) => Family::V6,
            _ => Family::Any,
        },
        proxies: ProxyRules::from_variables(|name| std::env::var(name).ok()),
        trust: Trust {
            authorities: arguments.cacert.clone(),
            verification: if arguments.insecure { Verification::Unchecked } else { Verification::Checked },
        },
        read_size: limit_rate
            .map_or(defaults.read_size, |rate| RateLimiter::new(rate).read_size().min(defaults.read_size)),
        ..defaults
    }
}

/// Parses an address with a scheme and a host.
fn parse_url(text: &str) -> Result<Url, DownloadError> {
    let url = Url::parse(text).map_err(|_| invalid(text, "expected http://host:port/file"))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        // `host:8080/file` parses as the scheme `host`.
        _ if url.cannot_be_a_base() || !url.has_host() => {
            Err(invalid(text, "expected http://host:port/file"))
        }
        scheme => Err(DownloadError::Scheme { url: masked(text), scheme: scheme.to_owned() }),
    }
}

fn invalid(text: &str, reason: &'static str) -> DownloadError {
    DownloadError::InvalidUrl { url: masked(text), reason }
}

fn parse_checksum(text: &str) -> Result<Checksum, DownloadError> {
    Checksum::parse_named(text).ok_or_else(|| {
        usage("--checksum: expected sha-256=, sha-512= or sha-1= and the digest in hexadecimal")
    })
}

/// Parses a header line. It must not contain another header line, nor a header that the download sets itself.
fn parse_header(line: &str) -> Result<(String, String), DownloadError> {
    const OURS: [&str; 7] =
        ["host", "connection", "range", "if-range", "accept-encoding", "content-length", "transfer-encoding"];
    let bad = |reason: &str| DownloadError::Usage(format!("-H {line:?}: {reason}"));
    let (name, value) = line.split_once(':').ok_or_else(|| bad("expected NAME: VALUE"))?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) || value.chars().any(char::is_control) {
        return Err(bad("expected NAME: VALUE without control characters"));
    }
    if OURS.iter().any(|own| own.eq_ignore_ascii_case(name)) {
        return Err(bad("the download itself sets this header"));
    }
    Ok((name.to_owned(), value.trim().to_owned()))
}

fn read_list(path: &Path) -> Result<String, DownloadError> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(MAX_LIST_BYTES).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_LIST_BYTES).read_to_end(&mut bytes))
    };
    read.map_err(|error| DownloadError::Usage(format!("cannot read the list {}: {error}", path.display())))?;
    Ok(decoded(&bytes))
}

/// Decodes a text as written by other programs: UTF-8 with or without byte order mark, or UTF-16 with byte
/// order mark. Bytes of other charsets are percent-encoded, as in an address.
fn decoded(bytes: &[u8]) -> String {
    let wide = |pair: fn([u8; 2]) -> u16, bytes: &[u8]| {
        let units: Vec<u16> = bytes.as_chunks().0.iter().map(|chunk| pair(*chunk)).collect();
        String::from_utf16_lossy(&units)
    };
    match bytes {
        [0xEF, 0xBB, 0xBF, rest @ ..] => naming::lossless(rest),
        [0xFF, 0xFE, rest @ ..] => wide(u16::from_le_bytes, rest),
        [0xFE, 0xFF, rest @ ..] => wide(u16::from_be_bytes, rest),
        _ => naming::lossless(bytes),
    }
}

/// The lines that are neither blank nor comments.
fn addresses(text: &str) -> impl Iterator<Item = String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests;
