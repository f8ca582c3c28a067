/work/main/drbd-backend/fuzz/target/debug/deps/crc32c-ba7053f5addacf68.d: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/lib.rs /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/combine.rs /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/hasher.rs /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/hw_tables.rs /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/hw_x86_64.rs /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/io.rs /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/sw.rs /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/util.rs /work/main/drbd-backend/fuzz/target/debug/build/crc32c-60cb7154ede27ee4/out/hw.long.table /work/main/drbd-backend/fuzz/target/debug/build/crc32c-60cb7154ede27ee4/out/hw.short.table /work/main/drbd-backend/fuzz/target/debug/build/crc32c-60cb7154ede27ee4/out/sw.table

/work/main/drbd-backend/fuzz/target/debug/deps/libcrc32c-ba7053f5addacf68.rmeta: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/lib.rs /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/combine.rs /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/hasher.rs /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/hw_tables.rs /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/hw_x86_64.rs /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/io.rs /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/sw.rs /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/util.rs /work/main/drbd-backend/fuzz/target/debug/build/crc32c-60cb7154ede27ee4/out/hw.long.table /work/main/drbd-backend/fuzz/target/debug/build/crc32c-60cb7154ede27ee4/out/hw.short.table /work/main/drbd-backend/fuzz/target/debug/build/crc32c-60cb7154ede27ee4/out/sw.table

/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/lib.rs:
/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/combine.rs:
/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/hasher.rs:
/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/hw_tables.rs:
/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/hw_x86_64.rs:
/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/io.rs:
/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/sw.rs:
/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crc32c-0.6.9/src/util.rs:
/work/main/drbd-backend/fuzz/target/debug/build/crc32c-60cb7154ede27ee4/out/hw.long.table:
/work/main/drbd-backend/fuzz/target/debug/build/crc32c-60cb7154ede27ee4/out/hw.short.table:
/work/main/drbd-backend/fuzz/target/debug/build/crc32c-60cb7154ede27ee4/out/sw.table:

# env-dep:OUT_DIR=/work/main/drbd-backend/fuzz/target/debug/build/crc32c-60cb7154ede27ee4/out
