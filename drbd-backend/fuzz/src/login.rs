//! Logins of iSCSI initiators under libFuzzer.
#![no_main]

#[path = "../../tests/fuzz/login.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::take(bytes));
