//! Who calls the embedded arbiter, and what they may do there.
//!
//! | | read | change records | change fences | rebuild |
//! |---|---|---|---|---|
//! | `tandem://node/NAME` | yes | yes | yes: it asks for those whom it lets fence | yes: it asks for administrators |
//! | `tandem://ha/NAME` | yes | | yes | |
//! | `tandem://admin/NAME` | yes | | yes | yes |
//! | anybody on loopback, without TLS | yes | yes | yes | yes |

use std::fmt;

use rustls::pki_types::CertificateDer;

use super::Change;
use crate::identity::Identity;

/// Whoever holds the certificate, or has an account on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    Loopback,
    Known(Identity),
    /// Without a certificate, or with one that names nobody.
    Nobody,
}

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Read,
    ChangeRecord,
    Rebuild,
    ChangeFences,
}

impl From<&Change> for Deed {
    fn from(change: &Change) -> Self {
        match change {
            Change::Create { .. } | Change::Swap { .. } | Change::Remove { .. } => Self::ChangeRecord,
            Change::Rebuild { .. } => Self::Rebuild,
        }
    }
}

impl Caller {
    /// From the leaf of a chain that TLS has verified.
    pub(super) fn of_certificate(leaf: Option<&CertificateDer<'_>>) -> Self {
        leaf.and_then(|leaf| Identity::of(leaf).ok()).map_or(Self::Nobody, Self::Known)
    }

    pub(super) fn may(&self, deed: Deed) -> bool {
        let identity = match self {
            Self::Loopback => return true,
            Self::Nobody => return false,
            Self::Known(identity) => identity,
        };
        match (identity, deed) {
            (Identity::Node(_), _)
            | (Identity::Ha(_), Deed::Read | Deed::ChangeFences)
            | (Identity::Admin(_), Deed::Read | Deed::ChangeFences | Deed::Rebuild) => true,
            (Identity::Ha(_), Deed::ChangeRecord | Deed::Rebuild)
            | (Identity::Admin(_), Deed::ChangeRecord)
            | (Identity::Cinder(_), _) => false,
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => f.write_str("somebody on this machine"),
            Self::Known(identity) => identity.fmt(f),
            Self::Nobody => f.write_str("whoever shows no certificate of Tandem's"),
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read what the arbiter holds",
            Self::ChangeRecord => "change records",
            Self::Rebuild => "rebuild records",
            Self::ChangeFences => "change the list of fenced hosts",
        })
    }
}
