//! Metadata on disk under libFuzzer.
#![no_main]

#[path = "../../tests/fuzz/metadata.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::take(bytes));
