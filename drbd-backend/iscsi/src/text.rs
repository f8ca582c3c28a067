//! Text: `key=value` pairs, a zero byte behind each (RFC 7143, section 6.1).

use std::fmt::Display;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// With padding or without: initiators differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The longest key (section 6.1).
const MAX_KEY_BYTES: usize = 63;

/// A pair is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a key and its value")]
pub struct Malformed(pub String);

/// All pairs of a text, in their order.
pub(crate) fn pairs(text: &[u8]) -> Result<Vec<(&str, &str)>, Malformed> {
    let pairs = text.split(|byte| *byte == 0).filter(|pair| !pair.is_empty());
    pairs.map(|pair| parse(pair).ok_or_else(|| Malformed(String::from_utf8_lossy(pair).into_owned()))).collect()
}

fn parse(pair: &[u8]) -> Option<(&str, &str)> {
    let (key, value) = str::from_utf8(pair).ok()?.split_once('=')?;
    let is_key = !key.is_empty() && key.len() <= MAX_KEY_BYTES;
    is_key.then_some((key, value))
}

/// Appends a pair.
pub(crate) fn put(out: &mut Vec<u8>, key: &str, value: impl Display) {
    use std::io::Write;
    write!(out, "{key}={value}\0").expect("a vector takes everything");
}

/// A number: decimal, or hexadecimal behind 0x (section 6.1, "numerical-value").
pub(crate) fn number(value: &str) -> Option<u32> {
    match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => u32::from_str_radix(digits, 16).ok(),
        None if value.bytes().all(|byte| byte.is_ascii_digit()) => value.parse().ok(),
        _ => None,
    }
}

pub(crate) fn boolean(value: &str) -> Option<bool> {
    match value {
        "Yes" => Some(true),
        "No" => Some(false),
        _ => None,
    }
}

pub(crate) fn yes_or_no(value: bool) -> &'static str {
    if value { "Yes" } else { "No" }
}

/// Binary data: hexadecimal behind 0x, or base64 behind 0b (section 6.1, "large-binary-value").
pub(crate) fn binary(value: &str) -> Option<Vec<u8>> {
    if let Some(digits) = value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        return hexadecimal(digits);
    }
    BASE64.decode(value.strip_prefix("0b").or_else(|| value.strip_prefix("0B"))?).ok()
}

fn hexadecimal(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let digits = digits.bytes().map(digit).collect::<Option<Vec<u8>>>()?;
    // An odd one stands alone in the first byte.
    let (first, rest) = digits.split_at(digits.len() % 2);
    Some(first.iter().copied().chain(rest.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1])).collect())
}

/// Hexadecimal behind 0x.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("0x");
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_told_apart() {
        assert_eq!(pairs(b"A=1\0B=x=y\0\0").unwrap(), [("A", "1"), ("B", "x=y")]);
        assert_eq!(pairs(b"").unwrap(), []);
        assert_eq!(pairs(b"Nothing\0"), Err(Malformed("Nothing".to_owned())));
        assert!(pairs(&[0xff, b'=', 0]).is_err());
    }

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        assert_eq!(
            [number("512"), number("0x200"), number("0"), number("4294967295")],
            [Some(512), Some(512), Some(0), Some(u32::MAX)]
        );
        assert_eq!([number("-1"), number("+1"), number("4294967296"), number("12a"), number("0x")], [None; 5]);
    }

    #[test]
    fn binary_is_hexadecimal_or_base64() {
        assert_eq!(binary("0x0aFF").unwrap(), [0x0a, 0xff]);
        assert_eq!(binary("0xaff").unwrap(), [0x0a, 0xff]);
        assert_eq!(binary("0bAQIDBA==").unwrap(), [1, 2, 3, 4]);
        assert_eq!(binary("0bAQID").unwrap(), [1, 2, 3]);
        assert_eq!([binary("AQID"), binary("0xgg"), binary("0bA"), binary("0b!!!!")], [None, None, None, None]);
        assert_eq!(hex(&[0, 0x1f]), "0x001f");
    }
}
