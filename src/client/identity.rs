//! Identity of a file: the properties that must be the same on every server before their bytes are mixed.
//!
//! Entity tags and dates compare versions of one resource (RFC 9110, section 8.8). Only a digest compares
//! files of different resources. [`resource`] defines which addresses count as one resource.

use serde::{Deserialize, Serialize};
use url::Url;

use super::address::shown;
use super::checksum::Checksum;
use super::observed::Observed;

/// The resource that `answered` represents after redirects from `requested`. Validators may be compared
/// between answers with the same resource.
///
/// A mirror keeps the path: an address that ends with the requested path and query represents the requested
/// resource on any host. Any other path, such as `/1.2/f` behind `/latest`, is a resource of its own. Its
/// host and its query, which storage services sign for each request, do not count.
pub(super) fn resource(requested: &Url, answered: &Url) -> String {
    let mut name = shown(requested);
    let is_mirror = path_and_query(answered).ends_with(path_and_query(requested));
    if !is_mirror {
        name.push(' ');
        name.push_str(answered.path());
    }
    name
}

fn path_and_query(url: &Url) -> &str {
    &url[url::Position::BeforePath..url::Position::AfterQuery]
}

/// Origin of a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Authority {
    /// The user, a Metalink or the balancer. This digest wins over announcements of servers.
    Given,
    /// A server with the file.
    Server,
}

/// The known properties of the file that is being downloaded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ContentIdentity {
    /// Size in bytes.
    pub size: Option<u64>,
    /// Digest and its origin.
    pub digest: Option<(Checksum, Authority)>,
    /// Strong entity tags of this version on its servers.
    pub etags: Vec<String>,
    /// `Last-Modified`, if it is a strong validator.
    pub last_modified: Option<String>,
    /// The [`resource`] that the validators belong to; empty if there is no validator.
    pub resource: String,
}

/// Result of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The answer is proven to be of the same version.
    Same,
    /// The answer is of another version, or the versions cannot be proven equal.
    Different,
}

/// Maximum number of entity tags of one file.
const MAX_ETAGS: usize = 64;

impl ContentIdentity {
    /// Whether `observed` is this file. `own_etag` is the earlier tag of the same server.
    ///
    /// Without a digest in common, equality needs validators of the same resource: the same strong tag, or
    /// the same modification time and size. Equal sizes alone prove nothing: a stale copy often has the size
    /// of the new one.
    pub(super) fn compare(&self, observed: &Observed, own_etag: Option<&str>) -> Verdict {
        let verdict = |is_same| if is_same { Verdict::Same } else { Verdict::Different };
        if let (Some(known), Some(seen)) = (self.size, observed.size)
            && known != seen
        {
            return Verdict::Different;
        }
        if let (Some((known, _)), Some(seen)) = (self.digest, observed.digest)
            && known.algorithm() == seen.algorithm()
        {
            return verdict(known == seen);
        }
        let is_comparable = self.is_of(&observed.resource);
        if let (Some(own), Some(seen), true) = (own_etag, &observed.etag, is_comparable) {
            return verdict(own == seen);
        }
        if is_comparable && observed.etag.as_ref().is_some_and(|seen| self.etags.contains(seen)) {
            return Verdict::Same;
        }
        if self.digest.is_some_and(|(_, authority)| authority == Authority::Given) {
            // The digest of the complete file is verified in the end.
            return Verdict::Same;
        }
        match (&self.last_modified, &observed.last_modified) {
            (Some(known), Some(seen)) if is_comparable => {
                verdict(known == seen && self.size.is_some() && self.size == observed.size)
            }
            _ => verdict(self.is_open()),
        }
    }

    /// Whether validators of `resource` may be compared with those of this file.
    pub(super) fn is_of(&self, resource: &str) -> bool {
        self.resource.is_empty() || self.resource == resource
    }

    /// Whether no property of the file is known.
    pub(super) fn is_open(&self) -> bool {
        self.size.is_none() && self.etags.is_empty() && self.last_modified.is_none() && self.digest.is_none()
    }

    /// Adds the properties of an answer that was found to be the same file.
    pub(super) fn learn(&mut self, observed: &Observed) {
        self.size = self.size.or(observed.size);
        self.digest = self.digest.or(observed.digest.map(|digest| (digest, Authority::Server)));
        if !self.is_of(&observed.resource) {
            return;
        }
        if observed.validator().is_some() {
            self.resource.clone_from(&observed.resource);
        }
        self.last_modified = self.last_modified.take().or_else(|| observed.last_modified.clone());
        if let Some(etag) = &observed.etag
            && !self.etags.contains(etag)
            && self.etags.len() < MAX_ETAGS
        {
            self.etags.push(etag.clone());
        }
    }

    /// Keeps only a digest from the user, a Metalink or the balancer: the servers have another version now.
    pub(super) fn reopened(&self) -> Self {
        let digest = self.digest.filter(|(_, authority)| *authority == Authority::Given);
        Self { digest, ..Self::default() }
    }

    /// The validator for `If-Range` to a server whose own validator is unknown.
    pub(super) fn validator(&self) -> Option<&str> {
        self.etags.first().or(self.last_modified.as_ref()).map(String::as_str)
    }

    /// Whether the file may be requested in parts: only if a change of it would be detected.
    pub(super) fn can_be_resumed(&self) -> bool {
        self.validator().is_some() || self.digest.is_some()
    }
}

#[cfg(test)]
mod tests;
