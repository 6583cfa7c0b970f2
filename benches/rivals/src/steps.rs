//! What is timed, and the nonces and keys of the recordings.

pub const AES: &str = "handshake, AES";
pub const DES: &str = "handshake 1A, DES";
pub const KEY_SETTINGS: &str = "GetKeySettings, MAC";
pub const UID: &str = "GetCardUID, enciphered";
pub const VERSION: &str = "GetVersion, 3 frames, MAC";
pub const WRITES: [&str; 3] = [
    "WriteData 328 B, plain",
    "WriteData 328 B, MAC",
    "WriteData 328 B, enciphered",
];
pub const READS: [&str; 3] = [
    "ReadData 328 B, plain",
    "ReadData 328 B, MAC",
    "ReadData 328 B, enciphered",
];
pub const WRITE_28: &str = "WriteData 28 B, plain";
pub const READ_32: &str = "ReadData 32 B, plain";

pub const ALL: [&str; 13] = [
    AES,
    DES,
    KEY_SETTINGS,
    UID,
    VERSION,
    WRITE_28,
    READ_32,
    WRITES[0],
    READS[0],
    WRITES[1],
    READS[1],
    WRITES[2],
    READS[2],
];

pub const PART_17_KEY: [u8; 16] = [
    0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0x40, 0x48, 0x50, 0x58, 0x60, 0x68, 0x70, 0x78, 0x80, 0x88,
];
pub const PART_17_NONCE: [u8; 16] = [
    0x40, 0xe7, 0xd2, 0x71, 0x74, 0xcb, 0xa6, 0x75, 0xe8, 0xef, 0xba, 0xb9, 0x9c, 0x53, 0x0e, 0x3d,
];
pub const METADATA_NONCE: [u8; 8] = [0x32, 0xc2, 0x8f, 0xda, 0xfd, 0x39, 0x60, 0xde];
pub const METADATA_UID: [u8; 7] = [0x04, 0x64, 0xd5, 0x9a, 0xdd, 0x1e, 0x90];
pub const FILE_IO_NONCE: [u8; 16] = [
    0xc6, 0xb7, 0x81, 0x42, 0x8d, 0x97, 0x88, 0x37, 0xa6, 0x36, 0x08, 0x99, 0x11, 0x9f, 0x0d, 0xa4,
];
