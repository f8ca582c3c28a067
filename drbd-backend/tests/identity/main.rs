//! Certificates, handshakes and who may call what: with rustls on both sides, and with OpenSSL and Python on the other.

mod cost;
mod files;
mod handshakes;
mod names;
mod others;
mod refused;
mod reload;
mod table;
mod world;
