/work/main/drbd-backend/fuzz/target/debug/deps/peer-cadc54196a86ce54.d: src/peer.rs src/../../tests/fuzz/peer.rs

/work/main/drbd-backend/fuzz/target/debug/deps/libpeer-cadc54196a86ce54.rmeta: src/peer.rs src/../../tests/fuzz/peer.rs

src/peer.rs:
src/../../tests/fuzz/peer.rs:
