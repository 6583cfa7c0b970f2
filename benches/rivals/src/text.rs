//! What desox's recording wrote into its files.

use std::error::Error;

pub const WRITTEN: &[u8] = b"\
Had I the heavens' embroidered cloths,
Enwrought with golden and silver light,
The blue and the dim and the dark cloths
Of night and light and the half light,
I would spread the cloths under your feet:
But I, being poor, have only my dreams;
I have spread my dreams under your feet;
Tread softly because you tread on my dreams.
";

pub fn same(found: &[u8], expected: &[u8]) -> Result<(), Box<dyn Error>> {
    if found == expected {
        Ok(())
    } else {
        Err(format!("got {found:02x?}, recorded {expected:02x?}").into())
    }
}
