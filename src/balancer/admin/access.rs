//! The permission to change something over the admin listener. Reading needs no permission.
//!
//! A page of any origin can send requests to a loopback address through the browser of an operator, and can make its own
//! name resolve to that address (DNS rebinding). Therefore a write must be JSON, which a form cannot send and which a
//! script of another origin sends only after a preflight request that fails here; its `Origin` must equal its `Host`; and
//! without a token its `Host` must be a loopback name.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap, HeaderName};
use sha2::{Digest as _, Sha256};

use super::problem::Problem;
use crate::hex::hex;
use crate::secret_file::{self, SecretFileError};

/// The name of the cookie that permits writes of the page.
const COOKIE: &str = "fingerpost-admin";

/// The length of a token, in bytes. A shorter one could be guessed.
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 16..=512;

/// The token cannot be used, or is missing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    /// Other machines could change the balancer.
    #[error(
        "the admin address {0} is not a loopback address, so it needs a token: name the file of a token with \
         --admin-token, or use an address such as 127.0.0.1:9100"
    )]
    NoToken(SocketAddr),
    /// The file of the token cannot be read, or other users can read it.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The file holds no token.
    #[error(
        "{} is not a token: it must hold one line of 16 to 512 letters, digits or signs; create one with: \
         openssl rand -hex 32", path.display()
    )]
    NotAToken { path: PathBuf },
}

/// Reads a token from a file that only its owner can read.
pub(crate) fn read_token(path: &Path) -> Result<String, AccessError> {
    let token = secret_file::read(path)?;
    let is_token = TOKEN_BYTES.contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_token { Ok(token) } else { Err(AccessError::NotAToken { path: path.to_owned() }) }
}

/// Decides whether a request may change something.
#[derive(Debug)]
pub(crate) struct Access {
    token: Option<Token>,
}

/// Digests, so that the time of a comparison does not depend on the number of equal bytes of the token.
#[derive(Debug)]
struct Token {
    token: [u8; 32],
    cookie: String,
}

impl Token {
    fn new(token: &str) -> Self {
        let cookie = hex(&Sha256::digest(format!("fingerpost admin cookie {token}")));
        Self { token: Sha256::digest(token).into(), cookie }
    }

    fn is(&self, given: &str) -> bool {
        self.token == <[u8; 32]>::from(Sha256::digest(given))
    }
}

impl Access {
    /// The access to a listener at `address`. `token_file` holds the token; only a loopback address needs none.
    pub(crate) fn open(token_file: Option<&Path>, address: SocketAddr) -> Result<Self, AccessError> {
        if token_file.is_none() && !address.ip().to_canonical().is_loopback() {
            return Err(AccessError::NoToken(address));
        }
        Ok(Self::new(token_file.map(read_token).transpose()?.as_deref()))
    }

    fn new(token: Option<&str>) -> Self {
        Self { token: token.map(Token::new) }
    }

    /// Permits or refuses a write with these headers from `peer`. Returns its author, for the audit log.
    pub(super) fn authorize(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Result<String, Problem> {
        self.check_origin(headers)?;
        let peer = peer.map_or("unknown".to_owned(), |peer| peer.to_canonical().to_string());
        let Some(token) = &self.token else { return Ok(format!("{peer} without a token")) };
        let bearer = text(headers, header::AUTHORIZATION).and_then(|value| {
            let (scheme, given) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(given.trim())
        });
        match bearer {
            Some(given) if token.is(given) => return Ok(format!("{peer} with the token")),
            Some(_) => return Err(Problem::new(StatusCode::UNAUTHORIZED, "the token is wrong")),
            None => {}
        }
        let cookies = headers.get_all(header::COOKIE).filter_map(|value| value.to_str().ok());
        let mut cookies =
            cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        // The cookie is a digest already, but its comparison must not reveal equal bytes either.
        let digest = |text: &str| Sha256::digest(text);
        if cookies.any(|(name, value)| name == COOKIE && digest(value) == digest(&token.cookie)) {
            return Ok(format!("{peer} with the cookie of the page"));
        }
        let detail =
            "changes need the token of the balancer: send Authorization: Bearer TOKEN, or --token FILE";
        Err(Problem::new(StatusCode::UNAUTHORIZED, detail))
    }

    /// The `Set-Cookie` of a session, which permits writes like the token; `None` without a token.
    pub(super) fn cookie(&self) -> Option<String> {
        let token = self.token.as_ref()?;
        Some(format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Strict", token.cookie))
    }

    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let kind = text(headers, header::CONTENT_TYPE).and_then(|value| value.split(';').next());
        if !kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
            let detail = "a change must have Content-Type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let host = text(headers, header::HOST).unwrap_or_default();
        if self.token.is_none() && !is_loopback(host) {
            let detail = "without a token, the Host of a change must be localhost or a loopback address";
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
        // A browser sends the `Origin` of the page with every POST.
        let is_own = |origin: &header::HeaderValue| {
            let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
            origin.is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
        };
        if !headers.get_all(header::ORIGIN).all(is_own) {
            let detail = "a page of another origin may not change the balancer";
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
        Ok(())
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Whether the host of this authority is a loopback address or `localhost`.
fn is_loopback(authority: &str) -> bool {
    let after_host = authority.rfind(':').filter(|colon| authority.rfind(']').is_none_or(|end| end < *colon));
    let host = authority.get(..after_host.unwrap_or(authority.len())).unwrap_or_default();
    let plain = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || plain.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests;
