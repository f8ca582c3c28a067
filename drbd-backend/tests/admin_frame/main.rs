//! The frame of REST and what is not volumes: doors and callers, errors, fences, dead nodes, events, the arbiter, metrics. Real nodes, real sockets.

mod arbiter;
mod dead;
mod doors;
mod events;
mod fences;
mod openapi;
mod world;
