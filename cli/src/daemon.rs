//! The two daemons that are asked, and what each one's things are called.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Daemon {
    Ha,
    Node,
}

impl Daemon {
    /// As its binary and its unit are called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ha => "tandem-ha",
            Self::Node => "tandem-node",
        }
    }

    /// The option that names its address, and the key of the file.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Ha => "ha",
            Self::Node => "node",
        }
    }

    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Ha => "TANDEM_HA_URL",
            Self::Node => "TANDEM_NODE_URL",
        }
    }

    /// What is asked where nothing else is named.
    pub(crate) fn socket(self) -> &'static str {
        match self {
            Self::Ha => "unix:/run/tandem/ha.sock",
            Self::Node => "unix:/run/tandem/node.sock",
        }
    }

    /// Its usual port on its own host.
    pub(crate) fn port(self) -> &'static str {
        match self {
            Self::Ha => "http://127.0.0.1:15868",
            Self::Node => "http://127.0.0.1:15870",
        }
    }

    /// The command that shows what came of an order.
    pub(crate) fn look(self) -> &'static str {
        match self {
            Self::Ha => "tandem status",
            Self::Node => "tandem volume list",
        }
    }
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
