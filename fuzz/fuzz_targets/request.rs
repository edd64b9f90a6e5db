#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| adamant_fuzz::request(bytes));
