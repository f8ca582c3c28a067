//! What is in flight on one replica: writes and reads that must not pass each other.
//!
//! Overlap is judged on whole blocks, for clients', received and resync's alike. Of two that overlap, one of them a write, the later one
//! waits; so at most one write of a block is on its way at any time, on any replica.

use crate::event::Content;
use crate::names::{Job, Link, Node, Nodes, Payload, Request, Seq, Span, Time};

/// A place in the table; used again once it is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u32);

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) at: Time,
    pub(crate) span: Span,
    pub(crate) kind: Kind,
    pub(crate) stage: Stage,
    /// Given when it is sent.
    pub(crate) seq: Seq,
    pub(crate) content: Option<Content>,
    pub(crate) durable: bool,
    /// Its bytes do not fill their blocks.
    pub(crate) part: bool,
    /// The activity log has its blocks.
    pub(crate) marked: bool,
    /// When the disk answered a read.
    pub(crate) loaded: Option<Time>,
    /// Peers that have it on the way and have not answered.
    pub(crate) waiting: Nodes,
}

/// Who wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read {
        request: Request,
        client: u32,
    },
    Write {
        request: Request,
        client: u32,
    },
    /// Blocks that could not be read here: fetched from a peer, written, then answered.
    Repair {
        request: Request,
        client: u32,
    },
    /// As above, because a resync could not read them; nobody waits for it.
    Mend,
    Received {
        link: Link,
    },
    /// Read here, written there.
    Resync {
        target: Node,
    },
    /// Read here, written to all in-sync peers.
    Equalise,
    /// Of a life before: nobody waits for it but the blocks.
    Orphan,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Something earlier overlaps, or an extent is cold.
    Waiting,
    /// The bytes that do not fill their blocks are being merged.
    Merging(Job),
    Loading(Job),
    /// On its way to this disk.
    Storing(Job),
    /// The pool was full: again at this time.
    Full(Time),
    /// A peer was asked for the blocks.
    Fetching(u64),
    /// This disk has done its part.
    Stored,
    /// Answered; only peers that are not in sync have not said that they have it. It locks nothing.
    Trailing,
}

impl Kind {
    pub(crate) fn writes(self) -> bool {
        matches!(self, Self::Write { .. } | Self::Repair { .. } | Self::Mend | Self::Received { .. } | Self::Orphan)
    }

    pub(crate) fn request(self) -> Option<(Request, u32)> {
        match self {
            Self::Read { request, client } | Self::Write { request, client } | Self::Repair { request, client } => {
                Some((request, client))
            }
            Self::Mend | Self::Received { .. } | Self::Resync { .. } | Self::Equalise | Self::Orphan => None,
        }
    }
}

impl Entry {
    fn locks(&self) -> bool {
        self.stage != Stage::Trailing
    }

    fn excludes(&self, other: &Self) -> bool {
        self.span.overlaps(other.span) && (self.kind.writes() || other.kind.writes())
    }

    pub(crate) fn payload(&self) -> Option<Payload> {
        match self.content {
            Some(Content::Data(payload)) => Some(payload),
            Some(Content::Zeroes { .. }) | None => None,
        }
    }

    /// Something of it is under way on this disk.
    pub(crate) fn on_disk(&self) -> bool {
        matches!(self.stage, Stage::Merging(_) | Stage::Loading(_) | Stage::Storing(_))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    places: Vec<Option<Entry>>,
    free: Vec<Place>,
    /// In order of arrival.
    order: Vec<Place>,
}

impl Table {
    pub(crate) fn with_capacity(count: usize) -> Self {
        Self { places: Vec::with_capacity(count), free: Vec::with_capacity(count), order: Vec::with_capacity(count) }
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub(crate) fn insert(
        &mut self,
        at: Time,
        span: Span,
        kind: Kind,
        content: Option<Content>,
        durable: bool,
    ) -> Place {
        let entry = Entry {
            at,
            span,
            kind,
            stage: Stage::Waiting,
            seq: Seq(0),
            content,
            durable,
            part: false,
            marked: false,
            loaded: None,
            waiting: Nodes::NONE,
        };
        let place = if let Some(place) = self.free.pop() {
            self.places[place.0 as usize] = Some(entry);
            place
        } else {
            self.places.push(Some(entry));
            Place(u32::try_from(self.places.len() - 1).expect("the table is bounded"))
        };
        self.order.push(place);
        place
    }

    pub(crate) fn remove(&mut self, place: Place) -> Entry {
        let entry = self.places[place.0 as usize].take().expect("it was there");
        let index = self.order.iter().position(|other| *other == place).expect("each entry has its turn");
        self.order.remove(index);
        self.free.push(place);
        entry
    }

    pub(crate) fn get(&self, place: Place) -> &Entry {
        self.places[place.0 as usize].as_ref().expect("it is there")
    }

    pub(crate) fn get_mut(&mut self, place: Place) -> &mut Entry {
        self.places[place.0 as usize].as_mut().expect("it is there")
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (Place, &Entry)> {
        self.order.iter().map(|place| (*place, self.get(*place)))
    }

    /// The place of the `index`-th in order of arrival.
    pub(crate) fn nth(&self, index: usize) -> Option<Place> {
        self.order.get(index).copied()
    }

    pub(crate) fn find(&self, wanted: impl Fn(&Entry) -> bool) -> Option<Place> {
        self.entries().find(|(_, entry)| wanted(entry)).map(|(place, _)| place)
    }

    pub(crate) fn any(&self, wanted: impl Fn(&Entry) -> bool) -> bool {
        self.entries().any(|(_, entry)| wanted(entry))
    }

    /// Whether something that arrived earlier keeps this one waiting.
    pub(crate) fn is_blocked(&self, place: Place) -> bool {
        let entry = self.get(place);
        let earlier = self.entries().take_while(|(other, _)| *other != place);
        earlier.into_iter().any(|(_, other)| other.locks() && other.excludes(entry))
    }

    /// What the write that waits longest needs to be hot: only one is favoured, or two that need more than there is room for would wait for ever.
    pub(crate) fn wanted_first(&self) -> Option<Span> {
        let waiting = |entry: &Entry| entry.stage == Stage::Waiting && entry.kind.writes();
        let first = self.entries().find(|(place, entry)| waiting(entry) && !self.is_blocked(*place));
        first.map(|(_, entry)| entry.span)
    }
}
