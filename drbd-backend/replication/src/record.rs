//! What the arbiter holds of a volume: who may serve it, and which disks have every acknowledged write.
//!
//! One small record in a register with compare-and-swap. Every change compares the whole of it and sets generation + 1.

use core::fmt;

use crate::names::{DiskId, Generation, MAX_NODES, Node, Nodes};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Record {
    pub generation: Generation,
    /// Who alone may acknowledge writes. None after a demotion: then nobody is promoted unasked.
    pub primary: Option<Node>,
    /// Who has a replica, in sync or not.
    pub members: Nodes,
    /// The disks that have every acknowledged write.
    in_sync: [Option<DiskId>; MAX_NODES],
    /// When a member left `in_sync`. One that is neither here nor in sync comes back only by a full resync.
    left: [Option<Generation>; MAX_NODES],
    /// Raised when the last cache that held unflushed writes is lost: sessions of clients from before are refused.
    pub epoch: u64,
}

impl Record {
    /// Of a new volume: all its replicas are empty and equal, nobody is Primary.
    #[must_use]
    pub fn of_new_volume(disks: impl IntoIterator<Item = (Node, DiskId)>) -> Self {
        let mut record = Self {
            generation: Generation(1),
            primary: None,
            members: Nodes::NONE,
            in_sync: [None; MAX_NODES],
            left: [None; MAX_NODES],
            epoch: 1,
        };
        for (node, disk) in disks {
            record.members.insert(node);
            record.in_sync[node.index()] = Some(disk);
        }
        record
    }

    /// From its parts, as a store keeps them.
    #[must_use]
    pub fn of_parts(
        generation: Generation,
        primary: Option<Node>,
        members: Nodes,
        in_sync: [Option<DiskId>; MAX_NODES],
        left: [Option<Generation>; MAX_NODES],
        epoch: u64,
    ) -> Self {
        Self { generation, primary, members, in_sync, left, epoch }
    }

    #[must_use]
    pub fn in_sync(&self) -> Nodes {
        Node::all().filter(|node| self.in_sync[node.index()].is_some()).collect()
    }

    /// The disk that stands in `in_sync` for this node.
    #[must_use]
    pub fn disk(&self, node: Node) -> Option<DiskId> {
        self.in_sync[node.index()]
    }

    #[must_use]
    pub fn left(&self, node: Node) -> Option<Generation> {
        self.left[node.index()]
    }

    /// Members that lack writes.
    #[must_use]
    pub fn absent(&self) -> Nodes {
        self.members.difference(self.in_sync())
    }

    /// The record that follows this one, to be changed further.
    #[must_use]
    pub fn next(&self) -> Self {
        Self { generation: self.generation.next(), ..self.clone() }
    }

    /// `node` leaves `in_sync` in this record's generation.
    pub fn remove(&mut self, node: Node) {
        if self.in_sync[node.index()].take().is_some() {
            self.left[node.index()] = Some(self.generation);
        }
    }

    /// As above, and its disk is retired for good: it comes back only by a full resync.
    pub fn retire(&mut self, node: Node) {
        self.in_sync[node.index()] = None;
        self.left[node.index()] = None;
    }

    pub fn add(&mut self, node: Node, disk: DiskId) {
        self.in_sync[node.index()] = Some(disk);
        self.left[node.index()] = None;
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {}, ", self.generation)?;
        match self.primary {
            Some(node) => write!(f, "Primary {node}, in sync")?,
            None => write!(f, "no Primary, in sync")?,
        }
        self.in_sync().iter().try_for_each(|node| write!(f, " {}", node.place()))
    }
}
