//! HTTP for all parts: the client, and for balancer and file server listeners, connections, the check of `Host`, error pages, the
//! stop, pages for operators.

pub mod admin;
pub mod client;
pub mod host;
pub mod listener;
pub mod pages;
pub mod stop;
pub mod tls;
pub mod transport;
