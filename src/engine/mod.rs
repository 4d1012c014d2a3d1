//! The connection to the engine, Redis or Valkey, which carries registrations and records between machines.
//!
//! - A command connects if necessary, has a deadline, and never waits for an earlier command. A failure closes the
//!   connection unless the engine itself refused the command, so a late answer cannot be taken for that of another
//!   command. The caller retries after a pause of [`Backoff`].
//! - The engine is not trusted: the bytes of an answer are limited, and its error texts are escaped.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::select_ok;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisConnectionInfo, Value};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

mod settings;

use settings::HostPort;
pub(crate) use settings::{EngineAddress, EngineSettings, EngineUrlError, FleetSettings, RawFleetSettings};

use crate::http::client::{ResolveError, Resolver, TlsError};
use crate::http::tls;
use crate::secret_file::SecretFileError;

/// The time limit of a connection with its TLS handshake and its authentication.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The time limit of a command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(1);
/// The largest answer to a command, in bytes.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// The number of keys that a step of a scan looks at, and the number of values that one pipeline reads.
const KEYS_PER_STEP: usize = 500;
/// The largest number of steps of a scan, which limits the number of foreign keys that it passes.
const MAX_SCAN_STEPS: usize = 2000;
/// The codes of the errors for a wrong user, password or command.
const DENIED: [&str; 3] = ["NOAUTH", "WRONGPASS", "NOPERM"];
/// The code of the error for a command that only the primary carries out.
const READ_ONLY: &str = "READONLY";
/// The longest text of the engine in an error, in characters.
const SHOWN_CHARACTERS: usize = 200;

/// The engine cannot be used, or did not carry out a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// The file with the password cannot be used.
    #[error("cannot read the password of the engine (fleet.password_file)")]
    Password(#[from] SecretFileError),
    /// The name of the engine cannot be resolved.
    #[error("cannot resolve the name of the engine")]
    Name(#[from] ResolveError),
    /// The engine cannot be reached, or the connection ended.
    #[error("cannot reach the engine: check that it runs and that its address is right")]
    Connection(#[source] io::Error),
    /// TLS cannot be set up.
    #[error("cannot use the authorities of the engine (fleet.ca)")]
    Tls(#[from] TlsError),
    /// The engine did not answer in time.
    #[error("the engine did not answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// The engine did not accept the user, the password or the command of this user.
    #[error(
        "the engine denied access ({0}): check the user in the URL, fleet.password_file, and the rules of this user"
    )]
    Denied(String),
    /// The engine refused a command, for instance because its memory is full.
    #[error("the engine refused a command: {0}")]
    Refused(String),
    /// The answer is not that of an engine, or has another type than expected.
    #[error("the answer is not one of Redis or Valkey: {0}")]
    Answer(String),
    /// A scan found too many keys.
    #[error(
        "the database of the engine has too many keys: use another database, as in redis://host:6379/1, or remove keys"
    )]
    TooManyKeys,
}

impl EngineError {
    /// The error of a command or of the authentication.
    fn of_command(error: &redis::RedisError) -> Self {
        let text: String =
            error.to_string().chars().take(SHOWN_CHARACTERS).flat_map(char::escape_default).collect();
        match (error.kind(), error.code()) {
            (ErrorKind::Io, _) => Self::Connection(io::Error::other(text)),
            (ErrorKind::AuthenticationFailed, _) => Self::Denied(text),
            (_, Some(code)) if DENIED.contains(&code) => Self::Denied(text),
            (ErrorKind::Server(_) | ErrorKind::Extension, _) => Self::Refused(text),
            _ => Self::Answer(text),
        }
    }

    /// Whether the connection can be used after this error: the engine answered.
    fn keeps_connection(&self) -> bool {
        // After a failover, `Refused` may be the answer of a replica; its other commands work until a write needs the
        // new primary, which a new connection finds.
        matches!(self, Self::TooManyKeys) || matches!(self, Self::Refused(text) if !text.contains(READ_ONLY))
    }
}

/// A client of one engine.
///
/// The methods must be called on an actix arbiter.
#[derive(Debug)]
pub(crate) struct EngineClient {
    settings: EngineSettings,
    resolver: Resolver,
    connection: Option<EngineConnection>,
    /// Receives the other end of each connection in a simulation.
    #[cfg(test)]
    pub(crate) simulated: Option<tokio::sync::mpsc::UnboundedSender<tokio::io::DuplexStream>>,
}

#[derive(Debug)]
struct EngineConnection {
    commands: MultiplexedConnection,
    /// The bytes that the engine may still send before the connection fails.
    allowance: Arc<AtomicUsize>,
}

impl EngineClient {
    /// A client that connects at its first command.
    pub(crate) fn new(settings: EngineSettings, resolver: Resolver) -> Self {
        Self {
            settings,
            resolver,
            connection: None,
            #[cfg(test)]
            simulated: None,
        }
    }

    /// The address of the engine, for messages.
    pub(crate) fn address(&self) -> &EngineAddress {
        &self.settings.address
    }

    /// A key of this fleet: the prefix, the version of all formats and `name`. All keys of a fleet are in one slot of a
    /// cluster.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{{{}}}:1:{name}", self.settings.fleet.prefix)
    }

    /// Carries out one command.
    pub(crate) async fn run<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, EngineError> {
        self.with_connection(async |commands| command.query_async(commands).await).await
    }

    /// Carries out the commands of a pipeline. An error of one command is an element of the result; see
    /// [`Pipeline::ignore_errors`]. A denied access or a replica fails all, so that the next connection uses the password that
    /// is valid then, and the primary.
    pub(crate) async fn run_all(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, EngineError> {
        self.with_connection(async |commands| {
            let answers: Vec<Value> = pipeline.query_async(commands).await?;
            for answer in &answers {
                if let Value::ServerError(error) = answer
                    && (DENIED.contains(&error.code()) || error.code() == READ_ONLY)
                {
                    return Err(error.clone().into());
                }
            }
            Ok(answers)
        })
        .await
    }

    /// The keys that start with `prefix`, at most `most` of them, whose values are strings.
    pub(crate) async fn scan(&mut self, prefix: &str, most: usize) -> Result<BTreeSet<String>, EngineError> {
        let mut keys = BTreeSet::new();
        let mut cursor = 0_u64;
        let pattern = glob_of(prefix);
        for _ in 0..MAX_SCAN_STEPS {
            let mut step = redis::cmd("SCAN");
            step.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(KEYS_PER_STEP);
            step.arg("TYPE").arg("string");
            let found: (u64, Vec<Vec<u8>>) = self.run(&step).await?;
            keys.extend(found.1.into_iter().filter_map(|key| String::from_utf8(key).ok()));
            if keys.len() > most {
                return Err(EngineError::TooManyKeys);
            }
            cursor = found.0;
            if cursor == 0 {
                return Ok(keys);
            }
        }
        Err(EngineError::TooManyKeys)
    }

    /// The first `most_bytes` bytes of each value, in the order of `keys`. A missing key has an empty value, and so has a
    /// value that is not a string.
    pub(crate) async fn read<'a>(
        &mut self,
        keys: impl IntoIterator<Item = &'a str>,
        most_bytes: usize,
    ) -> Result<Vec<Vec<u8>>, EngineError> {
        let keys: Vec<&str> = keys.into_iter().collect();
        let mut values = Vec::with_capacity(keys.len());
        for step in keys.chunks(KEYS_PER_STEP) {
            let mut pipeline = redis::pipe();
            for key in step {
                pipeline.cmd("GETRANGE").arg(*key).arg(0).arg(most_bytes.saturating_sub(1));
            }
            let found = self.run_all(pipeline.ignore_errors()).await?;
            values.extend(found.into_iter().map(|value| match value {
                Value::BulkString(bytes) => bytes,
                _ => Vec::new(),
            }));
        }
        Ok(values)
    }

    /// Carries out a Lua script, atomically.
    pub(crate) async fn eval<T: FromRedisValue>(
        &mut self,
        script: &str,
        keys: &[&str],
        arguments: &[&str],
    ) -> Result<T, EngineError> {
        self.run(redis::cmd("EVAL").arg(script).arg(keys.len()).arg(keys).arg(arguments)).await
    }

    async fn with_connection<T>(
        &mut self,
        run: impl AsyncFnOnce(&mut MultiplexedConnection) -> redis::RedisResult<T>,
    ) -> Result<T, EngineError> {
        // A caller that is cancelled in a command leaves no connection with an open answer.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => timeout(CONNECT_TIMEOUT, self.connect())
                .await
                .unwrap_or(Err(EngineError::TimedOut(CONNECT_TIMEOUT)))?,
        };
        connection.allowance.store(MAX_ANSWER_BYTES, Ordering::Relaxed);
        let result = match timeout(COMMAND_TIMEOUT, run(&mut connection.commands)).await {
            Ok(result) => result.map_err(|error| EngineError::of_command(&error)),
            Err(_) => Err(EngineError::TimedOut(COMMAND_TIMEOUT)),
        };
        if result.as_ref().err().is_none_or(EngineError::keeps_connection) {
            self.connection = Some(connection);
        }
        result
    }

    async fn connect(&self) -> Result<EngineConnection, EngineError> {
        let mut info =
            RedisConnectionInfo::default().set_db(self.settings.address.database).set_skip_set_lib_name();
        if let Some(user) = &self.settings.address.user {
            info = info.set_username(user);
        }
        // The file is read for each connection, so a changed password needs no restart.
        let password = self.settings.fleet.password()?;
        if !password.is_empty() {
            info = info.set_password(password);
        }
        let EngineAddress { hosts, primary, .. } = &self.settings.address;
        let (host, port) = match (primary, hosts.first()) {
            (Some(name), _) => {
                let answers = hosts.iter().map(|sentinel| Box::pin(self.ask(sentinel, name)));
                // A Sentinel that is wrong leads to an engine that does not answer or accepts no value: the next connection
                // asks again.
                select_ok(answers).await?.0
            }
            (None, Some(engine)) => engine.clone(),
            (None, None) => return Err(EngineError::Connection(io::ErrorKind::InvalidInput.into())),
        };
        self.connect_to(&host, port, &info).await
    }

    /// The address of the engine with this name according to a Sentinel.
    async fn ask(&self, (host, port): &HostPort, name: &str) -> Result<HostPort, EngineError> {
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let mut sentinel = self.connect_to(host, *port, &info).await?;
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let answer: redis::RedisResult<Option<HostPort>> = question.query_async(&mut sentinel.commands).await;
        let engine = answer.map_err(|error| EngineError::of_command(&error))?;
        engine.ok_or_else(|| EngineError::Refused(format!("the Sentinel {host}:{port} knows no {name}")))
    }

    async fn connect_to(
        &self,
        host: &str,
        port: u16,
        info: &RedisConnectionInfo,
    ) -> Result<EngineConnection, EngineError> {
        let allowance = Arc::new(AtomicUsize::new(MAX_ANSWER_BYTES));
        let stream = Bounded { stream: self.dial(host, port).await?, allowance: Arc::clone(&allowance) };
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (commands, driver) = MultiplexedConnection::new_with_config(info, stream, config)
            .await
            .map_err(|error| EngineError::of_command(&error))?;
        actix_rt::spawn(driver);
        Ok(EngineConnection { commands, allowance })
    }

    async fn dial(&self, host: &str, port: u16) -> Result<Box<dyn ByteStream>, EngineError> {
        #[cfg(test)]
        if let Some(engine) = &self.simulated {
            let (own, other) = tokio::io::duplex(1 << 16);
            let _ = engine.send(other);
            return Ok(Box::new(own));
        }
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => [address].into(),
            Err(_) => self.resolver.resolve(host).await?,
        };
        let mut stream = Err(io::Error::from(io::ErrorKind::AddrNotAvailable));
        for address in &*addresses {
            stream = TcpStream::connect((*address, port)).await;
            if stream.is_ok() {
                break;
            }
        }
        let stream = stream.map_err(EngineError::Connection)?;
        stream.set_nodelay(true).map_err(EngineError::Connection)?;
        if !self.settings.address.uses_tls {
            return Ok(Box::new(stream));
        }
        let mut config = (*tls::client_config(&self.settings.fleet.trust)?).clone();
        config.alpn_protocols.clear();
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| EngineError::Connection(io::Error::other(error)))?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        Ok(Box::new(stream.map_err(EngineError::Connection)?))
    }
}

/// A pattern of `SCAN` for the keys that start with `prefix`.
fn glob_of(prefix: &str) -> String {
    let mut pattern = String::new();
    for character in prefix.chars() {
        if r"*?[]\^-".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('*');
    pattern
}

/// The connection below the protocol, with or without TLS.
trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for S {}

/// Fails once the engine has sent more bytes than allowed.
struct Bounded {
    stream: Box<dyn ByteStream>,
    allowance: Arc<AtomicUsize>,
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let read = buffer.filled().len().saturating_sub(before);
        let left = self.allowance.load(Ordering::Relaxed);
        if read > left {
            return Poll::Ready(Err(io::Error::other(format!(
                "an answer has more than {MAX_ANSWER_BYTES} bytes"
            ))));
        }
        self.allowance.store(left - read, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The pauses between attempts to use the engine: each failure doubles the pause, and jitter spreads the attempts of
/// many machines.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(2);

    /// The pause after a failure. `jitter` is from 0 to 1.
    pub(crate) fn next(&mut self, jitter: f64) -> Duration {
        let pause = Self::FIRST.saturating_mul(1 << self.failures.min(10)).min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        pause.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
    }

    /// Ends the series of failures.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests;
