//! NBD under libFuzzer.
#![no_main]

#[allow(dead_code, unused_imports, reason = "the server uses all of it")]
#[path = "../../src/export"]
mod export {
    pub mod nbd;
}
use export::nbd as protocol;

#[path = "../../tests/fuzz/nbd.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::take(bytes));
