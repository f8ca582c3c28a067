//! SCSI commands under libFuzzer.
#![no_main]

#[path = "../../tests/fuzz/cdb.rs"]
mod cdb;
#[allow(dead_code, reason = "its own target uses all of it")]
#[path = "../../tests/fuzz/session.rs"]
mod session;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cdb::take(bytes));
