//! The peer protocol under libFuzzer.
#![no_main]

#[path = "../../tests/fuzz/peer.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::take(bytes));
