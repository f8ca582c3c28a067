/work/main/drbd-backend/fuzz/target/debug/deps/login-42a30bcf052c4df4.d: src/login.rs src/../../tests/fuzz/login.rs

/work/main/drbd-backend/fuzz/target/debug/deps/liblogin-42a30bcf052c4df4.rmeta: src/login.rs src/../../tests/fuzz/login.rs

src/login.rs:
src/../../tests/fuzz/login.rs:
