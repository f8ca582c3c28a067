/work/main/drbd-backend/fuzz/target/debug/deps/cdb-842dc2e14cfe277d.d: src/cdb.rs src/../../tests/fuzz/cdb.rs src/../../tests/fuzz/session.rs

/work/main/drbd-backend/fuzz/target/debug/deps/libcdb-842dc2e14cfe277d.rmeta: src/cdb.rs src/../../tests/fuzz/cdb.rs src/../../tests/fuzz/session.rs

src/cdb.rs:
src/../../tests/fuzz/cdb.rs:
src/../../tests/fuzz/session.rs:
