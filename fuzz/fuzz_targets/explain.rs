//! Any explanation: no panic, a chosen backend is a candidate, and the balancer is not changed.
#![no_main]

use std::fmt::Write as _;

use fingerpost::internals::driver::ApiDriver;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

thread_local! {
    // Never dropped, because the fuzzer may exit at any time.
    static API: &'static ApiDriver = Box::leak(Box::new(ApiDriver::start()));
}

fuzz_target!(|input: (&[u8], Option<u128>, bool)| {
    let (path, client, is_https) = input;
    let mut target = format!("/api/v1/explain?scheme={}&path=", if is_https { "https" } else { "http" });
    for byte in path {
        write!(target, "%{byte:02x}").expect("a string takes any text");
    }
    if let Some(client) = client {
        let client = std::net::Ipv6Addr::from(client);
        write!(target, "&client={client}").expect("a string takes any text");
    }
    let Some(answer) = API.with(|api| api.request(&target, None)) else { return };
    let content: Value = serde_json::from_slice(&answer.body).expect("the answer is JSON");
    match answer.status {
        200 => {
            let chosen = &content["choice"]["backend"];
            let backends = content["backends"].as_array().expect("the answer has backends");
            let is_candidate =
                |backend: &Value| backend["candidate"] == true && backend["backend"] == *chosen;
            assert!(chosen.is_null() || backends.iter().any(is_candidate), "{content}");
        }
        status => assert_eq!(status, 400, "{content}"),
    }
});
