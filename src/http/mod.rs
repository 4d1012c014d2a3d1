//! What balancer and file server share: listeners, the connection, error pages.

pub mod listener;
pub mod pages;
pub mod tls;
