//! The file server: serves a folder, with an HTML page for every error.
//!
//! It is a service of actix-web ([`FileService`]). `fingerpost server` mounts it on the transport of fingerpost;
//! other programs mount it on a stock `HttpServer`. `actix_files::NamedFile` evaluates conditions and ranges.

// The modules:
// - `service`: the service, and its settings for other programs.
// - `path`, `root`, `walk_beneath`: parse a request path, and open the file beneath the root.
// - `file_state`: the state of a file on the disk. `found_file`: a file that can be sent. `validators`, `media`: its
//   headers.
// - `store`, `cache`, `memfd_copy`: open files, and small files in memory.
// - `encoding`, `variants`: select a precompressed file in place of the plain one.
// - `files`: from a request to its file. `sending`: from a file to its answer. `rewrite` and `range`
//   translate our entity tag and multiple ranges for `NamedFile`, and `stand_in` gives it the properties of a file
//   in memory.
// - `replay`, `recorded_heads`: the fast path, which repeats a recorded answer.
// - `multipart`, `body`: response bodies.
// - `listing`: pages for folders without an index.
// - `digests`: the SHA-256 of every file, computed in the background.
// - `load`: the load report for balancers, and `drain`: the graceful stop.
// - `lease`: the registration in an engine.
// - `metrics`, `admin`: the operator's view. `program`: `fingerpost server`, with listeners and signals.

mod admin;
mod body;
mod cache;
mod digests;
mod drain;
mod encoding;
mod file_state;
mod files;
mod found_file;
mod lease;
mod listing;
mod load;
mod media;
mod memfd_copy;
mod metrics;
mod multipart;
mod path;
mod program;
pub(crate) mod range;
mod recorded_heads;
mod replay;
mod rewrite;
mod root;
mod sending;
mod service;
pub(crate) mod settings;
mod stand_in;
mod store;
mod validators;
mod variants;
mod walk_beneath;

pub use program::FileServer;
pub use root::RootError;
pub use service::{FileService, FileServiceBuilder, FileWorkerService};
