//! Options: what their data says, and the bytes of the replies to them.

use super::numbers::{
    BASE_ALLOCATION, BASE_ALLOCATION_ID, BASE_WILDCARD, INFO_BLOCK_SIZE, INFO_DESCRIPTION, INFO_EXPORT, INFO_NAME,
    OPTION_REPLY_MAGIC, REP_ACK, REP_INFO, REP_META_CONTEXT, REP_SERVER,
};
use super::reader::Reader;
use super::{Export, MAX_STRING_BYTES, MAXIMUM_BLOCK_BYTES, MINIMUM_BLOCK_BYTES, PREFERRED_BLOCK_BYTES, clipped};

/// The data of an option is not what it should be: `NBD_REP_ERR_INVALID`, with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Invalid(pub(super) &'static str);

const CUT_SHORT: Invalid = Invalid("the option's data is cut short, or longer than what it says of itself");

/// A string that names an export ("Conventions").
pub(super) fn name(bytes: &[u8]) -> Result<&str, Invalid> {
    if bytes.len() > MAX_STRING_BYTES {
        return Err(Invalid("the export's name is longer than 4096 bytes"));
    }
    match str::from_utf8(bytes) {
        Ok(name) if !name.contains('\0') => Ok(name),
        Ok(_) => Err(Invalid("the export's name has a NUL in it")),
        Err(_) => Err(Invalid("the export's name is not UTF-8")),
    }
}

/// The data of `NBD_OPT_INFO` and `NBD_OPT_GO`.
#[derive(Debug)]
pub(super) struct Inquiry<'a> {
    pub(super) name: &'a str,
    wants_name: bool,
    wants_description: bool,
}

impl<'a> Inquiry<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, Invalid> {
        let mut reader = Reader(data);
        let name = name(reader.string().ok_or(CUT_SHORT)?)?;
        let mut inquiry = Self { name, wants_name: false, wants_description: false };
        for _ in 0..reader.u16().ok_or(CUT_SHORT)? {
            match reader.u16().ok_or(CUT_SHORT)? {
                INFO_NAME => inquiry.wants_name = true,
                INFO_DESCRIPTION => inquiry.wants_description = true,
                // The export's size, and the block sizes, are told anyway; what else there is we do not know.
                _ => {}
            }
        }
        reader.end().ok_or(CUT_SHORT)?;
        Ok(inquiry)
    }

    /// `NBD_REP_INFO` for each thing that the client asked for or has to know, and `NBD_REP_ACK`.
    pub(super) fn answer(&self, option: u32, export: &Export, flags: u16, out: &mut Vec<u8>) {
        let size = export.size_bytes.to_be_bytes();
        reply(out, option, REP_INFO, &[&INFO_EXPORT.to_be_bytes(), &size, &flags.to_be_bytes()]);
        if self.wants_name {
            let name = clipped(&export.name, MAX_STRING_BYTES);
            reply(out, option, REP_INFO, &[&INFO_NAME.to_be_bytes(), name.as_bytes()]);
        }
        if self.wants_description {
            let description = clipped(&export.description, MAX_STRING_BYTES);
            reply(out, option, REP_INFO, &[&INFO_DESCRIPTION.to_be_bytes(), description.as_bytes()]);
        }
        let sizes = [MINIMUM_BLOCK_BYTES, PREFERRED_BLOCK_BYTES, MAXIMUM_BLOCK_BYTES].map(u32::to_be_bytes);
        reply(out, option, REP_INFO, &[&INFO_BLOCK_SIZE.to_be_bytes(), sizes.as_flattened()]);
        reply(out, option, REP_ACK, &[]);
    }
}

/// The data of `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`.
#[derive(Debug)]
pub(super) struct ContextQuery<'a> {
    pub(super) name: &'a str,
    has_queries: bool,
    asks_for_allocation: bool,
    asks_for_all_of_base: bool,
}

impl<'a> ContextQuery<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, Invalid> {
        let mut reader = Reader(data);
        let name = name(reader.string().ok_or(CUT_SHORT)?)?;
        let count = reader.u32().ok_or(CUT_SHORT)?;
        let (mut asks_for_allocation, mut asks_for_all_of_base) = (false, false);
        // Each query takes four bytes at least, so however many are announced, the data ends this soon.
        for _ in 0..count {
            let query = reader.string().ok_or(CUT_SHORT)?;
            asks_for_allocation |= query == BASE_ALLOCATION.as_bytes();
            asks_for_all_of_base |= query == BASE_WILDCARD.as_bytes();
        }
        reader.end().ok_or(CUT_SHORT)?;
        Ok(Self { name, has_queries: count > 0, asks_for_allocation, asks_for_all_of_base })
    }

    /// Whether `NBD_OPT_LIST_META_CONTEXT` is answered with `base:allocation`: without queries all there is, and with a wildcard.
    pub(super) fn lists_allocation(&self) -> bool {
        !self.has_queries || self.asks_for_allocation || self.asks_for_all_of_base
    }

    /// Whether `NBD_OPT_SET_META_CONTEXT` selects `base:allocation`: only by its full name.
    pub(super) fn selects_allocation(&self) -> bool {
        self.asks_for_allocation
    }
}

/// `NBD_REP_META_CONTEXT` of `base:allocation`; in a list the number means nothing and is zero.
pub(super) fn allocation_context(out: &mut Vec<u8>, option: u32, is_selected: bool) {
    let id = if is_selected { BASE_ALLOCATION_ID } else { 0 };
    reply(out, option, REP_META_CONTEXT, &[&id.to_be_bytes(), BASE_ALLOCATION.as_bytes()]);
}

/// `NBD_REP_SERVER`.
pub(super) fn server(out: &mut Vec<u8>, option: u32, name: &str, description: &str) {
    let (name, description) = (clipped(name, MAX_STRING_BYTES), clipped(description, MAX_STRING_BYTES));
    let length = u32::try_from(name.len()).expect("it was clipped to less");
    reply(out, option, REP_SERVER, &[&length.to_be_bytes(), name.as_bytes(), description.as_bytes()]);
}

/// An error, which may have a text for the client's user ("Option reply types").
pub(super) fn error(out: &mut Vec<u8>, option: u32, kind: u32, text: &str) {
    reply(out, option, kind, &[clipped(text, MAX_STRING_BYTES).as_bytes()]);
}

pub(super) fn ack(out: &mut Vec<u8>, option: u32) {
    reply(out, option, REP_ACK, &[]);
}

/// "Fixed newstyle negotiation": the reply to an option.
fn reply(out: &mut Vec<u8>, option: u32, kind: u32, data: &[&[u8]]) {
    let length: usize = data.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length).expect("its strings were clipped");
    out.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
    for number in [option, kind, length] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    for part in data {
        out.extend_from_slice(part);
    }
}
