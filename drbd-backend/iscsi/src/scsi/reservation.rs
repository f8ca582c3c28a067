//! Persistent reservations: who registered, who holds what, and who is shut out (SPC-4, sections 5.13 and 6.15, 6.16).
//!
//! They are part of a volume's control document, so they hold on every node and survive all of them: what SPC-4 calls "persist through power loss" is
//! always so here, asked for or not.

use crate::bytes::{put_u16, put_u32, u16_at, u32_at, u64_at};
use crate::scsi::operation::{Name, Touch};
use crate::scsi::sense::{Sense, code};

/// The parameter list of PERSISTENT RESERVE OUT (SPC-4, 6.16.3).
pub(crate) const PARAMETER_BYTES: u32 = 24;

const MAX_REGISTRANTS: usize = 256;

const SPEC_I_PT: u8 = 0x08;
const ALL_TG_PT: u8 = 0x04;
const APTPL: u8 = 0x01;

/// One way from an initiator to the logical unit: its port and ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Nexus {
    /// The iSCSI name and the ISID, as in a TransportID (SPC-4, 7.6.4.6): "iqn…,i,0x…".
    pub(crate) initiator: String,
    /// The relative port identifier.
    pub(crate) port: u16,
}

/// The kinds of reservation (SPC-4, table 64).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Type {
    WriteExclusive = 1,
    ExclusiveAccess = 3,
    WriteExclusiveRegistrantsOnly = 5,
    ExclusiveAccessRegistrantsOnly = 6,
    WriteExclusiveAllRegistrants = 7,
    ExclusiveAccessAllRegistrants = 8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Registrant {
    initiator: String,
    /// None: through all ports.
    port: Option<u16>,
    key: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    kind: Type,
    /// Who, by its place among the registrants; means nothing where all of them hold it.
    by: usize,
}

/// All of one logical unit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Reservations {
    /// PRGENERATION.
    generation: u32,
    /// PTPL_A: the last who registered asked for what is so anyway.
    persists: bool,
    registrants: Vec<Registrant>,
    held: Option<Held>,
}

/// How a PERSISTENT RESERVE OUT changes them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) next: Reservations,
    /// Whom it concerns, and what they are told.
    pub(crate) attentions: Vec<(Told, u16)>,
    /// Tasks of those who were told that their registration was preempted are aborted.
    pub(crate) aborts: bool,
}

/// Those of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    initiator: String,
    port: Option<u16>,
}

/// Why it is not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum No {
    /// RESERVATION CONFLICT.
    Conflict,
    Sense(Sense),
}

impl Type {
    fn of(bits: u8) -> Option<Self> {
        [
            Self::WriteExclusive,
            Self::ExclusiveAccess,
            Self::WriteExclusiveRegistrantsOnly,
            Self::ExclusiveAccessRegistrantsOnly,
            Self::WriteExclusiveAllRegistrants,
            Self::ExclusiveAccessAllRegistrants,
        ]
        .into_iter()
        .find(|it| *it as u8 == bits)
    }

    fn is_of_all(self) -> bool {
        matches!(self, Self::WriteExclusiveAllRegistrants | Self::ExclusiveAccessAllRegistrants)
    }

    fn lets_registrants(self) -> bool {
        self.is_of_all() || matches!(self, Self::WriteExclusiveRegistrantsOnly | Self::ExclusiveAccessRegistrantsOnly)
    }

    fn lets_all_read(self) -> bool {
        matches!(self, Self::WriteExclusive | Self::WriteExclusiveRegistrantsOnly | Self::WriteExclusiveAllRegistrants)
    }
}

impl Registrant {
    fn is(&self, nexus: &Nexus) -> bool {
        self.initiator == nexus.initiator && self.port.is_none_or(|port| port == nexus.port)
    }

    fn told(&self) -> Told {
        Told { initiator: self.initiator.clone(), port: self.port }
    }
}

impl Told {
    pub(crate) fn is(&self, nexus: &Nexus) -> bool {
        self.initiator == nexus.initiator && self.port.is_none_or(|port| port == nexus.port)
    }
}

impl Reservations {
    /// What an initiator is to hear of a change through another node (SPC-4, 5.13.11): its registration was preempted, or the reservation that let it in, or kept
    /// it out, is gone or another one.
    pub(crate) fn attention_after(&self, before: &Self, nexus: &Nexus) -> Option<u16> {
        let registered = |it: &Self| it.registrants.iter().any(|registrant| registrant.is(nexus));
        let holder =
            |it: &Self| it.held.as_ref().map(|held| (held.kind, it.registrants.get(held.by).map(Registrant::told)));
        match (registered(before), registered(self)) {
            (true, false) => Some(code::REGISTRATIONS_PREEMPTED),
            (true, true) if before.held.is_some() && holder(before) != holder(self) => {
                Some(code::RESERVATIONS_RELEASED)
            }
            _ => None,
        }
    }
}

/// The keys and flags of a parameter list.
struct Parameters {
    key: u64,
    action_key: u64,
    flags: u8,
}

impl Reservations {
    /// Whether a command is in conflict with what somebody else holds (SPC-4, table 65).
    pub(crate) fn conflict(&self, nexus: &Nexus, touch: Touch) -> bool {
        let Some(held) = &self.held else { return false };
        let is_holder = !held.kind.is_of_all() && self.registrants[held.by].is(nexus);
        let is_let = held.kind.lets_registrants() && self.place_of(nexus).is_some();
        match touch {
            _ if is_holder || is_let => false,
            Touch::Nothing | Touch::Reservations => false,
            Touch::Reads => !held.kind.lets_all_read(),
            Touch::Writes => true,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.registrants.is_empty()
    }

    pub(crate) fn is_registered(&self, nexus: &Nexus) -> bool {
        self.place_of(nexus).is_some()
    }

    fn place_of(&self, nexus: &Nexus) -> Option<usize> {
        self.registrants.iter().position(|it| it.is(nexus))
    }

    fn is_holder(&self, place: usize) -> bool {
        self.held.as_ref().is_some_and(|held| held.kind.is_of_all() || held.by == place)
    }

    /// PERSISTENT RESERVE OUT, by `byte2` of its CDB and its parameter list.
    pub(crate) fn out(&self, action: Name, byte2: u8, list: &[u8], nexus: &Nexus) -> Result<Change, No> {
        if list.len() != PARAMETER_BYTES as usize {
            return Err(No::Sense(Sense::illegal(code::PARAMETER_LIST_LENGTH)));
        }
        let parameters = Parameters { key: u64_at(list, 0), action_key: u64_at(list, 8), flags: list[20] };
        let mut change = Change { next: self.clone(), attentions: Vec::new(), aborts: false };
        match action {
            Name::Register | Name::RegisterAndIgnore => {
                change.register(&parameters, nexus, action == Name::RegisterAndIgnore)?;
            }
            _ => {
                let place = self.place_of(nexus).filter(|place| self.registrants[*place].key == parameters.key);
                let place = place.ok_or(No::Conflict)?;
                match action {
                    Name::Reserve => change.reserve(place, wished(byte2)?)?,
                    Name::Release => change.release(place, byte2)?,
                    Name::Clear => change.clear(place),
                    _ => {
                        change.preempt(place, byte2, parameters.action_key)?;
                        change.aborts = action == Name::PreemptAndAbort;
                    }
                }
            }
        }
        Ok(change)
    }

    /// READ KEYS (SPC-4, 6.15.2).
    pub(crate) fn keys(&self) -> Vec<u8> {
        self.listed(self.registrants.iter().flat_map(|it| it.key.to_be_bytes()).collect())
    }

    /// READ RESERVATION (SPC-4, 6.15.3).
    pub(crate) fn reservation(&self) -> Vec<u8> {
        let Some(held) = &self.held else { return self.listed(Vec::new()) };
        let key = if held.kind.is_of_all() { 0 } else { self.registrants[held.by].key };
        let mut descriptor = vec![0; 16];
        descriptor[..8].copy_from_slice(&key.to_be_bytes());
        descriptor[13] = held.kind as u8;
        self.listed(descriptor)
    }

    /// REPORT CAPABILITIES (SPC-4, 6.15.4): ATP_C, PTPL_C; every type.
    pub(crate) fn capabilities(&self) -> Vec<u8> {
        vec![0, 8, 0x05, 0x80 | u8::from(self.persists), 0xea, 0x01, 0, 0]
    }

    /// READ FULL STATUS (SPC-4, 6.15.5).
    pub(crate) fn full_status(&self) -> Vec<u8> {
        let mut descriptors = Vec::new();
        for (place, it) in self.registrants.iter().enumerate() {
            let start = descriptors.len();
            descriptors.resize(start + 24, 0);
            let descriptor = &mut descriptors[start..];
            descriptor[..8].copy_from_slice(&it.key.to_be_bytes());
            descriptor[12] = if it.port.is_none() { 0x02 } else { 0 } | u8::from(self.is_holder(place));
            if let Some(held) = self.held.as_ref().filter(|_| self.is_holder(place)) {
                descriptor[13] = held.kind as u8;
            }
            put_u16(descriptor, 18, it.port.unwrap_or_default());
            let transport = transport_id(&it.initiator);
            put_u32(descriptor, 20, u32::try_from(transport.len()).expect("a name is short"));
            descriptors.extend(transport);
        }
        self.listed(descriptors)
    }

    fn listed(&self, list: Vec<u8>) -> Vec<u8> {
        let mut data = self.generation.to_be_bytes().to_vec();
        data.extend(u32::try_from(list.len()).expect("there are few registrants").to_be_bytes());
        data.extend(list);
        data
    }

    /// As the control document keeps them.
    ///
    /// | bytes | what |
    /// |---|---|
    /// | 1 | 1: the version of this form |
    /// | 4 | generation |
    /// | 1 | flags: 1 PTPL_A |
    /// | 1 + 2 | type of the reservation or 0; its holder's place |
    /// | 2 | number of registrants, then each: |
    /// | 8 | - key |
    /// | 2 | - relative port identifier, 0 for all |
    /// | 2 + n | - initiator port: length and name |
    pub(crate) fn encoded(&self) -> Vec<u8> {
        if *self == Self::default() {
            return Vec::new();
        }
        let mut out = vec![1];
        out.extend(self.generation.to_be_bytes());
        out.push(u8::from(self.persists));
        let (kind, by) = self.held.as_ref().map_or((0, 0), |held| (held.kind as u8, held.by));
        let half =
            |number: usize| u16::try_from(number).expect("there are few registrants, with short names").to_be_bytes();
        out.push(kind);
        out.extend(half(by));
        out.extend(half(self.registrants.len()));
        for it in &self.registrants {
            out.extend(it.key.to_be_bytes());
            out.extend(it.port.unwrap_or_default().to_be_bytes());
            out.extend(half(it.initiator.len()));
            out.extend_from_slice(it.initiator.as_bytes());
        }
        out
    }

    /// `None` if these bytes are not of that form.
    pub(crate) fn decoded(bytes: &[u8]) -> Option<Self> {
        const HEAD: usize = 11;
        if bytes.is_empty() {
            return Some(Self::default());
        }
        if bytes.len() < HEAD || bytes[0] != 1 {
            return None;
        }
        let count = usize::from(u16_at(bytes, 9));
        let (mut registrants, mut rest) = (Vec::new(), &bytes[HEAD..]);
        for _ in 0..count {
            let (fixed, behind) = rest.split_at_checked(12)?;
            let (name, behind) = behind.split_at_checked(usize::from(u16_at(fixed, 10)))?;
            let port = Some(u16_at(fixed, 8)).filter(|port| *port != 0);
            registrants.push(Registrant {
                initiator: str::from_utf8(name).ok()?.to_owned(),
                port,
                key: u64_at(fixed, 0),
            });
            rest = behind;
        }
        let by = usize::from(u16_at(bytes, 7));
        let held = match bytes[6] {
            0 => None,
            kind => Some(Held { kind: Type::of(kind)?, by }).filter(|held| held.by < count),
        };
        let is_whole = rest.is_empty() && (bytes[6] == 0 || held.is_some());
        is_whole.then(|| Self { generation: u32_at(bytes, 1), persists: bytes[5] & 1 != 0, registrants, held })
    }
}

/// Scope and type of a CDB: the scope can only be the logical unit.
fn wished(byte2: u8) -> Result<Type, No> {
    let kind = if byte2 >> 4 == 0 { Type::of(byte2 & 0x0f) } else { None };
    kind.ok_or(No::Sense(Sense::in_cdb(2)))
}

/// SPC-4, 7.6.4.6: an iSCSI initiator port.
fn transport_id(initiator: &str) -> Vec<u8> {
    let mut out = vec![0x45, 0, 0, 0];
    out.extend_from_slice(initiator.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4).max(24), 0);
    let additional = u16::try_from(out.len() - 4).expect("a name is short");
    put_u16(&mut out, 2, additional);
    out
}

impl Change {
    fn register(&mut self, parameters: &Parameters, nexus: &Nexus, ignores: bool) -> Result<(), No> {
        let there = self.next.place_of(nexus);
        let (key, new) = (parameters.key, parameters.action_key);
        if parameters.flags & SPEC_I_PT != 0 {
            return Err(No::Sense(Sense::in_parameters(20)));
        }
        match there {
            Some(place) if !ignores && self.next.registrants[place].key != key => return Err(No::Conflict),
            None if !ignores && key != 0 => return Err(No::Conflict),
            None if new == 0 => {}
            Some(place) if new == 0 => self.unregister(place),
            Some(place) => self.next.registrants[place].key = new,
            None if self.next.registrants.len() == MAX_REGISTRANTS => {
                return Err(No::Sense(Sense::illegal(code::NO_REGISTRATION_RESOURCES)));
            }
            None => {
                let port = (parameters.flags & ALL_TG_PT == 0).then_some(nexus.port);
                if port.is_none() {
                    self.forget_ports_of(&nexus.initiator);
                }
                self.next.registrants.push(Registrant { initiator: nexus.initiator.clone(), port, key: new });
            }
        }
        self.next.persists = parameters.flags & APTPL != 0;
        self.next.generation = self.next.generation.wrapping_add(1);
        Ok(())
    }

    /// It registers through all ports from now on; it was not registered through this one.
    fn forget_ports_of(&mut self, initiator: &str) {
        while let Some(place) = self.next.registrants.iter().position(|it| it.initiator == initiator) {
            self.unregister(place);
        }
    }

    fn unregister(&mut self, place: usize) {
        let was_holder = self.next.is_holder(place);
        self.next.registrants.remove(place);
        let Some(held) = &mut self.next.held else { return };
        let is_released = if held.kind.is_of_all() { self.next.registrants.is_empty() } else { was_holder };
        if is_released {
            let lets_registrants = held.kind.lets_registrants();
            self.next.held = None;
            if lets_registrants {
                self.tell_all(code::RESERVATIONS_RELEASED, None);
            }
        } else if held.by > place {
            held.by -= 1;
        }
    }

    fn reserve(&mut self, place: usize, kind: Type) -> Result<(), No> {
        match &self.next.held {
            None => {
                self.next.held = Some(Held { kind, by: place });
                Ok(())
            }
            Some(held) if held.kind == kind && self.next.is_holder(place) => Ok(()),
            Some(_) => Err(No::Conflict),
        }
    }

    fn release(&mut self, place: usize, byte2: u8) -> Result<(), No> {
        let Some(held) = self.next.held.clone().filter(|_| self.next.is_holder(place)) else { return Ok(()) };
        if wished(byte2) != Ok(held.kind) {
            return Err(No::Sense(Sense::illegal(code::INVALID_RELEASE)));
        }
        self.next.held = None;
        if held.kind.lets_registrants() {
            self.tell_all(code::RESERVATIONS_RELEASED, Some(place));
        }
        Ok(())
    }

    fn clear(&mut self, place: usize) {
        self.tell_all(code::RESERVATIONS_PREEMPTED, Some(place));
        self.next.registrants.clear();
        self.next.held = None;
        self.next.generation = self.next.generation.wrapping_add(1);
    }

    /// SPC-4, 5.13.11.4.
    fn preempt(&mut self, place: usize, byte2: u8, victim: u64) -> Result<(), No> {
        let of_all = self.next.held.as_ref().is_some_and(|held| held.kind.is_of_all());
        let takes_over = match &self.next.held {
            Some(held) if held.kind.is_of_all() => victim == 0,
            Some(held) => self.next.registrants[held.by].key == victim,
            None => false,
        };
        if victim == 0 && !of_all {
            return Err(No::Sense(Sense::in_parameters(8)));
        }
        if !takes_over && !self.next.registrants.iter().any(|it| it.key == victim) {
            return Err(No::Conflict);
        }
        let kind = if takes_over { Some(wished(byte2)?) } else { None };
        let before = self.next.held.as_ref().map(|held| held.kind);
        let me = self.next.registrants[place].clone();
        let goes = |it: &Registrant| *it != me && (it.key == victim || (takes_over && victim == 0));
        let told =
            self.next.registrants.iter().filter(|it| goes(it)).map(|it| (it.told(), code::REGISTRATIONS_PREEMPTED));
        self.attentions.extend(told.collect::<Vec<_>>());
        let holder = self.next.held.as_ref().filter(|held| !held.kind.is_of_all()).map(|held| held.by);
        let holder = holder.map(|place| self.next.registrants[place].clone());
        // One's own registration goes too where its key is named and nothing is taken over.
        self.next.registrants.retain(|it| !goes(it) && (takes_over || *it != me || me.key != victim));
        let place_of = |one: &Registrant| self.next.registrants.iter().position(|it| it == one);
        let mine = place_of(&me);
        match (kind, mine) {
            (Some(kind), Some(by)) => {
                self.next.held = Some(Held { kind, by });
                if before.is_some_and(|before| before != kind && before.lets_registrants()) {
                    self.tell_all(code::RESERVATIONS_RELEASED, Some(by));
                }
            }
            _ => match (&mut self.next.held, holder.as_ref().and_then(place_of)) {
                (Some(held), Some(by)) => held.by = by,
                (Some(held), None) if held.kind.is_of_all() && !self.next.registrants.is_empty() => {}
                (held, _) => *held = None,
            },
        }
        self.next.generation = self.next.generation.wrapping_add(1);
        Ok(())
    }

    /// All registrants but this one.
    fn tell_all(&mut self, code: u16, but: Option<usize>) {
        let registrants = self.next.registrants.iter().enumerate();
        let told = registrants.filter(|(place, _)| Some(*place) != but).map(|(_, it)| (it.told(), code));
        self.attentions.extend(told);
    }
}
