//! CRC16 of D40 messaging and CRC32 of EV1 messaging.
//!
//! Both are sent least significant byte first.

use crc::{CRC_16_ISO_IEC_14443_3_A, CRC_32_JAMCRC, Crc, Table};

/// On a microcontroller one lane: 512 bytes and 1 KB of constants, one byte at a time.
#[cfg(not(target_pointer_width = "64"))]
pub(in crate::pcd) type Lanes = Table<1>;
/// Where there is room sixteen: 8 KB and 16 KB of constants, five times as fast.
#[cfg(target_pointer_width = "64")]
pub(in crate::pcd) type Lanes = Table<16>;

/// CRC-16/ISO-IEC-14443-3-A.
pub(in crate::pcd) static CRC16: Crc<u16, Lanes> =
    Crc::<u16, Lanes>::new(&CRC_16_ISO_IEC_14443_3_A);

/// CRC-32/JAMCRC: zlib's CRC32 without the final complement.
pub(in crate::pcd) static CRC32: Crc<u32, Lanes> = Crc::<u32, Lanes>::new(&CRC_32_JAMCRC);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values() {
        assert_eq!(CRC16.checksum(b"123456789"), 0xBF05);
        assert_eq!(CRC32.checksum(b"123456789"), 0x340B_C6D9);
        // UID as GetCardUID answers it (proxmark3, desfiretest.c).
        let uid = [0x04, 0x44, 0x0F, 0x32, 0x76, 0x31, 0x80];
        assert_eq!(CRC16.checksum(&uid).to_le_bytes(), [0x27, 0x98]);
    }
}
