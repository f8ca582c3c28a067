/work/main/drbd-backend/fuzz/target/debug/deps/nbd-78c82a2cf91f0fa1.d: src/nbd.rs src/../../src/export/nbd.rs src/../../src/export/nbd/handshake.rs src/../../src/export/nbd/numbers.rs src/../../src/export/nbd/option.rs src/../../src/export/nbd/reader.rs src/../../src/export/nbd/reply.rs src/../../src/export/nbd/request.rs src/../../src/export/nbd/session.rs src/../../tests/fuzz/nbd.rs

/work/main/drbd-backend/fuzz/target/debug/deps/libnbd-78c82a2cf91f0fa1.rmeta: src/nbd.rs src/../../src/export/nbd.rs src/../../src/export/nbd/handshake.rs src/../../src/export/nbd/numbers.rs src/../../src/export/nbd/option.rs src/../../src/export/nbd/reader.rs src/../../src/export/nbd/reply.rs src/../../src/export/nbd/request.rs src/../../src/export/nbd/session.rs src/../../tests/fuzz/nbd.rs

src/nbd.rs:
src/../../src/export/nbd.rs:
src/../../src/export/nbd/handshake.rs:
src/../../src/export/nbd/numbers.rs:
src/../../src/export/nbd/option.rs:
src/../../src/export/nbd/reader.rs:
src/../../src/export/nbd/reply.rs:
src/../../src/export/nbd/request.rs:
src/../../src/export/nbd/session.rs:
src/../../tests/fuzz/nbd.rs:
