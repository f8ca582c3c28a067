/work/main/drbd-backend/fuzz/target/debug/deps/session-e092b04b58cb36d7.d: src/session.rs src/../../tests/fuzz/session.rs

/work/main/drbd-backend/fuzz/target/debug/deps/libsession-e092b04b58cb36d7.rmeta: src/session.rs src/../../tests/fuzz/session.rs

src/session.rs:
src/../../tests/fuzz/session.rs:
