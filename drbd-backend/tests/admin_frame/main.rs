//! REST: doors and callers, errors, fences, dead nodes, events, the arbiter, metrics, volumes. Real nodes, real sockets.

mod arbiter;
mod dead;
mod doors;
mod events;
mod fences;
mod openapi;
mod repairs;
mod volumes;
mod world;
