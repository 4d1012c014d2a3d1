//! Any content of the files in the state folder: no panic, and a state that was read can be stored and read again.
#![no_main]

use fingerpost::internals::driver::{ApiDriver, read_orders};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static API: ApiDriver = ApiDriver::start();
}

fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        Some((b'o', body)) => read_orders(body),
        Some((b's', body)) => API.with(|api| api.read_state(body)),
        _ => {}
    }
});
