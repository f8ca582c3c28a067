//! Talks to the BMC of one host.
