//! HTTP for all parts of the program: the client, and for balancer and file server the listeners, connections, syntax
//! of `Host`, error pages, access log, graceful stop and admin pages.

pub(crate) mod access_log;
pub(crate) mod admin;
pub(crate) mod certificates;
pub mod client;
pub(crate) mod host;
pub(crate) mod https;
pub(crate) mod listener;
pub(crate) mod nowait;
pub(crate) mod pages;
pub(crate) mod reloading;
pub(crate) mod stop;
pub(crate) mod tls;
pub(crate) mod transport;

pub use pages::{Pages, PagesError};
