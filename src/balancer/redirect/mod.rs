//! The redirect: which backend a client is sent to, and how that is said.

pub mod location;
