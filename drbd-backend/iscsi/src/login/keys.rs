//! The keys of the operational stage: what both sides can live with (RFC 7143, section 13).

use crate::pdu::Digests;
use crate::text::{self, number, put, yes_or_no};

/// What holds in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pub digests: Digests,
    /// The longest data segment that the initiator takes, in bytes.
    pub max_send_bytes: u32,
    /// The longest data segment that we take, in bytes.
    pub max_receive_bytes: u32,
    /// Data comes only when asked for, but for what stands in its command.
    pub initial_r2t: bool,
    /// Data may stand in its command.
    pub immediate_data: bool,
    /// Of one sequence of data PDUs, in bytes.
    pub max_burst_bytes: u32,
    /// Of what comes unasked, in bytes.
    pub first_burst_bytes: u32,
    pub max_outstanding_r2t: u32,
}

/// The longest data segment that we take, and what a burst may have: as long as a piece of a write.
const MAX_RECEIVE_BYTES: u32 = 262_144;
const MAX_BURST_BYTES: u32 = 524_288;
const FIRST_BURST_BYTES: u32 = 262_144;
const MAX_OUTSTANDING_R2T: u32 = 8;

/// What a login may have in one segment until something else is agreed on (section 13.12).
pub(super) const DEFAULT_SEGMENT_BYTES: u32 = 8192;

const LEAST_BYTES: u32 = 512;
const MOST_BYTES: u32 = 0xff_ffff;

impl Default for Terms {
    /// What holds where a key is not negotiated (section 13).
    fn default() -> Self {
        Self {
            digests: Digests::default(),
            max_send_bytes: DEFAULT_SEGMENT_BYTES,
            max_receive_bytes: DEFAULT_SEGMENT_BYTES,
            initial_r2t: true,
            immediate_data: true,
            max_burst_bytes: 262_144,
            first_burst_bytes: 65_536,
            max_outstanding_r2t: 1,
        }
    }
}

/// What cannot go on: the login is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    #[error("{0} is negotiated twice")]
    Twice(&'static str),
    #[error("{key}={value} is not allowed")]
    Value { key: &'static str, value: String },
}

/// The negotiation of one login.
#[derive(Debug, Default)]
pub(super) struct Negotiation {
    pub(super) terms: Terms,
    seen: Vec<&'static str>,
    has_declared: bool,
}

/// Keys that belong to a session's data alone: a discovery session has none (section 13, "Irrelevant when: SessionType=Discovery").
const OF_NORMAL_SESSIONS: [&str; 8] = [
    "DataPDUInOrder",
    "DataSequenceInOrder",
    "FirstBurstLength",
    "ImmediateData",
    "InitialR2T",
    "MaxBurstLength",
    "MaxConnections",
    "MaxOutstandingR2T",
];

const KNOWN: [&str; 20] = [
    "DataDigest",
    "DataPDUInOrder",
    "DataSequenceInOrder",
    "DefaultTime2Retain",
    "DefaultTime2Wait",
    "ErrorRecoveryLevel",
    "FirstBurstLength",
    "HeaderDigest",
    "IFMarkInt",
    "IFMarker",
    "ImmediateData",
    "InitialR2T",
    "MaxBurstLength",
    "MaxConnections",
    "MaxOutstandingR2T",
    "MaxRecvDataSegmentLength",
    "OFMarkInt",
    "OFMarker",
    "TaskReporting",
    "iSCSIProtocolLevel",
];

impl Negotiation {
    /// A pair of the initiator, and what is answered.
    pub(super) fn offered(
        &mut self,
        key: &str,
        value: &str,
        is_discovery: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), BadKey> {
        let Some(known) = KNOWN.into_iter().find(|known| *known == key) else {
            put(out, key, "NotUnderstood");
            return Ok(());
        };
        if self.seen.contains(&known) {
            return Err(BadKey::Twice(known));
        }
        self.seen.push(known);
        if is_discovery && OF_NORMAL_SESSIONS.contains(&known) {
            put(out, key, "Irrelevant");
            return Ok(());
        }
        self.known(known, value, out).ok_or_else(|| BadKey::Value { key: known, value: value.to_owned() })
    }

    fn known(&mut self, key: &'static str, value: &str, out: &mut Vec<u8>) -> Option<()> {
        let terms = &mut self.terms;
        let bytes = || number(value).filter(|bytes| (LEAST_BYTES..=MOST_BYTES).contains(bytes));
        match key {
            "HeaderDigest" => terms.digests.header = digest(key, value, out)?,
            "DataDigest" => terms.digests.data = digest(key, value, out)?,
            "MaxRecvDataSegmentLength" => terms.max_send_bytes = bytes()?,
            "InitialR2T" => terms.initial_r2t = agree(key, text::boolean(value)?, out),
            "ImmediateData" => terms.immediate_data = agree(key, text::boolean(value)?, out),
            "DataPDUInOrder" | "DataSequenceInOrder" => drop(text::boolean(value).map(|_| agree(key, true, out))?),
            "MaxBurstLength" => terms.max_burst_bytes = least(key, bytes()?, MAX_BURST_BYTES, out),
            "FirstBurstLength" => terms.first_burst_bytes = least(key, bytes()?, FIRST_BURST_BYTES, out),
            "MaxOutstandingR2T" => {
                let offered = number(value).filter(|it| (1..=65_535).contains(it))?;
                terms.max_outstanding_r2t = least(key, offered, MAX_OUTSTANDING_R2T, out);
            }
            "MaxConnections" => drop(number(value).filter(|it| *it >= 1).map(|it| least(key, it, 1, out))?),
            "ErrorRecoveryLevel" => drop(number(value).filter(|it| *it <= 2).map(|it| least(key, it, 0, out))?),
            // Nothing is kept of a session whose connection is gone, so nobody needs to wait: time to wait is the initiator's (the greater of both), time
            // to retain is none (the lesser).
            "DefaultTime2Wait" => put(out, key, number(value).filter(|it| *it <= 3600)?),
            "DefaultTime2Retain" => drop(number(value).filter(|it| *it <= 3600).map(|it| least(key, it, 0, out))?),
            "TaskReporting" => put(out, key, one_of(value, &["RFC3720"])),
            "iSCSIProtocolLevel" => drop(number(value).filter(|it| *it <= 255).map(|it| least(key, it, 1, out))?),
            // Section 13.25: obsolete, and answered all the same.
            "IFMarker" | "OFMarker" => put(out, key, "No"),
            "IFMarkInt" | "OFMarkInt" => put(out, key, "Reject"),
            _ => unreachable!("every known key is here"),
        }
        Some(())
    }

    /// What we declare unasked, once.
    pub(super) fn declare(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.has_declared, true) {
            self.terms.max_receive_bytes = MAX_RECEIVE_BYTES;
            put(out, "MaxRecvDataSegmentLength", MAX_RECEIVE_BYTES);
        }
    }

    /// What holds from now on. What comes unasked is a burst too (section 13.14).
    pub(super) fn settled(&self) -> Terms {
        let first_burst_bytes = self.terms.first_burst_bytes.min(self.terms.max_burst_bytes);
        Terms { first_burst_bytes, ..self.terms }
    }
}

/// Of a list the first that we know (section 6.2.1).
fn one_of<'a>(list: &'a str, known: &[&str]) -> &'a str {
    list.split(',').find(|it| known.contains(it)).unwrap_or("Reject")
}

fn digest(key: &str, list: &str, out: &mut Vec<u8>) -> Option<bool> {
    let chosen = one_of(list, &["CRC32C", "None"]);
    put(out, key, chosen);
    (chosen != "Reject").then_some(chosen == "CRC32C")
}

/// We take what is offered: both functions, AND and OR, then have the initiator's value, for our own would be the one that decides nothing.
fn agree(key: &str, value: bool, out: &mut Vec<u8>) -> bool {
    put(out, key, yes_or_no(value));
    value
}

fn least(key: &str, offered: u32, ours: u32, out: &mut Vec<u8>) -> u32 {
    put(out, key, offered.min(ours));
    offered.min(ours)
}
