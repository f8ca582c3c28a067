/work/main/drbd-backend/fuzz/target/debug/deps/crypto_common-e80d9e830ed7cf9d.d: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crypto-common-0.1.7/src/lib.rs

/work/main/drbd-backend/fuzz/target/debug/deps/libcrypto_common-e80d9e830ed7cf9d.rmeta: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crypto-common-0.1.7/src/lib.rs

/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/crypto-common-0.1.7/src/lib.rs:
