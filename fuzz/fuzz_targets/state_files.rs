//! Any content of the files in the state folder: no panic, and a state that was read can be stored and read again.
#![no_main]

use fingerpost::internals::driver::{ApiDriver, read_orders};
use libfuzzer_sys::fuzz_target;

thread_local! {
    // Never dropped, because the fuzzer may exit at any time.
    static API: &'static ApiDriver = Box::leak(Box::new(ApiDriver::start()));
}

fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        Some((b'o', body)) => read_orders(body),
        Some((b's', body)) => API.with(|api| api.read_state(body)),
        _ => {}
    }
});
