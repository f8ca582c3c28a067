//! Numbers in bytes: big-endian everywhere (RFC 7143, section 11; SPC-4, 3.6).

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Three bytes.
pub(crate) fn u24_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([0, bytes[at], bytes[at + 1], bytes[at + 2]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}

pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Three bytes: the highest of four must be zero.
pub(crate) fn put_u24(bytes: &mut [u8], at: usize, value: u32) {
    debug_assert!(value < 1 << 24, "three bytes do not hold {value}");
    bytes[at..at + 3].copy_from_slice(&value.to_be_bytes()[1..]);
}

pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

/// A text in a field of fixed length: left-aligned, cut off or with spaces behind it (SPC-4, 4.4.1).
pub(crate) fn padded(out: &mut Vec<u8>, text: &str, bytes: usize) {
    let text = text.as_bytes();
    let text = &text[..text.len().min(bytes)];
    out.extend_from_slice(text);
    out.extend(std::iter::repeat_n(b' ', bytes - text.len()));
}
