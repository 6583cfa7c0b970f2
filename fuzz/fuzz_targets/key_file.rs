#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| desfire_ev1_fuzz::key_file::run(data));
