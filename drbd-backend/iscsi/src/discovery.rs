//! A discovery session: an initiator asks which targets there are for it, and where (RFC 7143, section 4.3 and appendix C).

use crate::login::{LoggedIn, WINDOW};
use crate::pdu::{
    CONTINUE, DIGEST_BYTES, FINAL, HEADER_BYTES, Header, NO_TAG, Reply, digest, padding, put, request, response,
};
use crate::text::{self, Malformed};

const MAX_TEXT_BYTES: usize = 4096;

/// Where a target is served.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Portal {
    /// As in TargetAddress: host and port.
    pub address: String,
    pub group: u16,
}

/// What came of the bytes received. Whatever it is: what is in `out` is to be sent first.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    More,
    /// To be looked up, and [`Discovery::found`] to be called: all targets that this initiator may see, or the one of that name.
    Targets(Option<String>),
    /// The connection is to be closed.
    LoggedOut,
}

/// Why it is over.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("a digest is wrong")]
    Digest,
    #[error("it sent {0} bytes of data in one PDU")]
    Segment(u32),
    #[error("it sent opcode {0:#04x}, which a discovery session has not")]
    Opcode(u8),
    #[error("its text has more than {MAX_TEXT_BYTES} bytes")]
    Endless,
    #[error("its text is malformed: {0}")]
    Text(#[from] Malformed),
}

/// See the module.
#[derive(Debug)]
pub struct Discovery {
    logged_in: LoggedIn,
    stat_sn: u32,
    exp_cmd_sn: u32,
    have: Vec<u8>,
    text: Vec<u8>,
    /// An answer, as far as it is not sent.
    rest: Vec<u8>,
}

impl Discovery {
    #[must_use]
    pub fn new(logged_in: LoggedIn) -> Self {
        let (stat_sn, exp_cmd_sn) = (logged_in.stat_sn, logged_in.cmd_sn);
        Self { logged_in, stat_sn, exp_cmd_sn, have: Vec::new(), text: Vec::new(), rest: Vec::new() }
    }

    /// How many bytes are missing until a request is whole.
    #[must_use]
    pub fn wants(&self) -> usize {
        if self.have.len() < HEADER_BYTES {
            return HEADER_BYTES - self.have.len();
        }
        self.whole() - self.have.len()
    }

    fn whole(&self) -> usize {
        let header = Header::of(&self.have);
        let (digests, data) = (self.logged_in.terms.digests, header.data_bytes() as usize);
        let tail = if data == 0 { 0 } else { digests.data_bytes() };
        HEADER_BYTES + header.additional_bytes() + digests.header_bytes() + data + padding(data) + tail
    }

    /// Takes bytes from the front, up to the end of one request at most, and says how many.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn received(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(usize, Said), Broken> {
        let taken = bytes.len().min(self.wants());
        self.have.extend_from_slice(&bytes[..taken]);
        if self.have.len() == HEADER_BYTES {
            let bytes = Header::of(&self.have).data_bytes();
            if bytes as usize > MAX_TEXT_BYTES {
                return Err(Broken::Segment(bytes));
            }
        }
        let said = if self.wants() == 0 { self.request(out)? } else { Said::More };
        Ok((taken, said))
    }

    fn request(&mut self, out: &mut Vec<u8>) -> Result<Said, Broken> {
        let request = std::mem::take(&mut self.have);
        let header = Header::of(&request);
        let data = self.data(&header, &request)?;
        if !header.is_immediate() {
            self.exp_cmd_sn = header.cmd_sn().wrapping_add(1);
        }
        match header.opcode() {
            request::TEXT => return self.asked(&header, data, out),
            request::NOP_OUT if header.task() == NO_TAG => {}
            request::NOP_OUT => {
                self.send(Reply::new(response::NOP_IN, FINAL, header.task()).word(20, NO_TAG), data, out);
            }
            request::LOGOUT => {
                self.send(Reply::new(response::LOGOUT, FINAL, header.task()), &[], out);
                return Ok(Said::LoggedOut);
            }
            // Section 4.3: nothing else belongs here.
            request::COMMAND | request::TASK_MANAGEMENT | request::DATA_OUT | request::SNACK => {
                const PROTOCOL_ERROR: u8 = 0x04;
                self.send(Reply::new(response::REJECT, FINAL, NO_TAG).byte(2, PROTOCOL_ERROR), &header.0, out);
            }
            other => return Err(Broken::Opcode(other)),
        }
        Ok(Said::More)
    }

    /// The data of a request that is whole, when its digests are right.
    fn data<'a>(&self, header: &Header, request: &'a [u8]) -> Result<&'a [u8], Broken> {
        let digests = self.logged_in.terms.digests;
        let head = HEADER_BYTES + header.additional_bytes();
        let start = head + digests.header_bytes();
        if digests.header && digest(crc32c::crc32c(&request[..head])) != request[head..start] {
            return Err(Broken::Digest);
        }
        let count = header.data_bytes() as usize;
        let end = start + count + padding(count);
        if count > 0 && digests.data && digest(crc32c::crc32c(&request[start..end])) != request[end..end + DIGEST_BYTES]
        {
            return Err(Broken::Digest);
        }
        Ok(&request[start..start + count])
    }

    fn asked(&mut self, header: &Header, data: &[u8], out: &mut Vec<u8>) -> Result<Said, Broken> {
        if !self.rest.is_empty() && data.is_empty() {
            self.answer(header, out);
            return Ok(Said::More);
        }
        self.rest.clear();
        if self.text.len() + data.len() > MAX_TEXT_BYTES {
            return Err(Broken::Endless);
        }
        self.text.extend_from_slice(data);
        if !header.is_final() || header.flags() & CONTINUE != 0 {
            self.send(Reply::new(response::TEXT, 0, header.task()).word(20, 1), &[], out);
            return Ok(Said::More);
        }
        let text = std::mem::take(&mut self.text);
        let mut wanted = None;
        for (key, value) in text::pairs(&text)? {
            match key {
                "SendTargets" if value == "All" => wanted = Some(None),
                "SendTargets"
                    if value.starts_with("iqn.") || value.starts_with("eui.") || value.starts_with("naa.") =>
                {
                    wanted = Some(Some(value.to_owned()));
                }
                "SendTargets" => text::put(&mut self.rest, key, "Reject"),
                "MaxRecvDataSegmentLength" => {
                    if let Some(bytes @ 512..=0xff_ffff) = text::number(value) {
                        self.logged_in.terms.max_send_bytes = bytes;
                    }
                }
                _ => text::put(&mut self.rest, key, "NotUnderstood"),
            }
        }
        match wanted {
            Some(wanted) => {
                self.have.extend_from_slice(&header.0);
                Ok(Said::Targets(wanted))
            }
            None => {
                self.answer(header, out);
                Ok(Said::More)
            }
        }
    }

    /// The targets that were asked for, each with its portals.
    ///
    /// # Panics
    /// If nobody asked.
    pub fn found(&mut self, targets: &[(String, Vec<Portal>)], out: &mut Vec<u8>) {
        let header = Header::of(&self.have);
        self.have.clear();
        for (name, portals) in targets {
            text::put(&mut self.rest, "TargetName", name);
            for portal in portals {
                text::put(&mut self.rest, "TargetAddress", format_args!("{},{}", portal.address, portal.group));
            }
        }
        self.answer(&header, out);
    }

    /// As much as the initiator takes at once; it asks for the rest (section 11.11.2).
    fn answer(&mut self, header: &Header, out: &mut Vec<u8>) {
        let most = self.logged_in.terms.max_send_bytes as usize;
        let rest = self.rest.split_off(self.rest.len().min(most));
        let part = std::mem::replace(&mut self.rest, rest);
        let (flags, tag) = if self.rest.is_empty() { (FINAL, NO_TAG) } else { (CONTINUE, 1) };
        self.send(Reply::new(response::TEXT, flags, header.task()).word(20, tag), &part, out);
    }

    fn send(&mut self, reply: Reply, data: &[u8], out: &mut Vec<u8>) {
        let reply = reply.word(24, self.stat_sn).word(28, self.exp_cmd_sn);
        let reply = reply.word(32, self.exp_cmd_sn.wrapping_add(WINDOW - 1));
        self.stat_sn = self.stat_sn.wrapping_add(1);
        put(out, reply, data, self.logged_in.terms.digests);
    }
}
