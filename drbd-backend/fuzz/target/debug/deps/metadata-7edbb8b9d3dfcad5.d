/work/main/drbd-backend/fuzz/target/debug/deps/metadata-7edbb8b9d3dfcad5.d: src/metadata.rs src/../../tests/fuzz/metadata.rs

/work/main/drbd-backend/fuzz/target/debug/deps/libmetadata-7edbb8b9d3dfcad5.rmeta: src/metadata.rs src/../../tests/fuzz/metadata.rs

src/metadata.rs:
src/../../tests/fuzz/metadata.rs:
