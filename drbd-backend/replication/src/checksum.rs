//! CRC32C (Castagnoli; RFC 3720, section 12.1), eight bytes a step, in safe code.
//!
//! For heads, bodies and metadata. Payloads are large and many: the shell computes their checksum with the processor's own instruction and hands
//! it in. The number is the same.

/// Castagnoli's polynomial, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `TABLES[n][byte]`: what `byte` makes of the checksum when `n` zero bytes follow it.
static TABLES: [[u32; 256]; 8] = tables();

#[expect(clippy::cast_possible_truncation, reason = "the index stays below 256; const code has no try_from")]
const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[zeros - 1][byte];
            tables[zeros][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        zeros += 1;
    }
    tables
}

/// Of these bytes.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c_more(0, bytes)
}

/// Of some bytes whose checksum is `before`, followed by these.
#[must_use]
pub fn crc32c_more(before: u32, bytes: &[u8]) -> u32 {
    let (eights, rest) = bytes.as_chunks::<8>();
    let crc = eights.iter().fold(!before, |crc, eight| {
        let [a, b, c, d] = (crc ^ u32::from_le_bytes([eight[0], eight[1], eight[2], eight[3]])).to_le_bytes();
        let at = |zeros: usize, byte: u8| TABLES[zeros][usize::from(byte)];
        at(7, a)
            ^ at(6, b)
            ^ at(5, c)
            ^ at(4, d)
            ^ at(3, eight[4])
            ^ at(2, eight[5])
            ^ at(1, eight[6])
            ^ at(0, eight[7])
    });
    !rest.iter().fold(crc, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        (crc >> 8) ^ TABLES[0][usize::from(low ^ byte)]
    })
}
