/work/main/drbd-backend/fuzz/target/debug/deps/rustc_version-97f87b712328e062.d: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/rustc_version-0.4.1/src/lib.rs

/work/main/drbd-backend/fuzz/target/debug/deps/librustc_version-97f87b712328e062.rlib: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/rustc_version-0.4.1/src/lib.rs

/work/main/drbd-backend/fuzz/target/debug/deps/librustc_version-97f87b712328e062.rmeta: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/rustc_version-0.4.1/src/lib.rs

/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/rustc_version-0.4.1/src/lib.rs:
