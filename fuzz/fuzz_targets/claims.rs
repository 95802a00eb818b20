//! The reader of tokens: header and claims of any bytes, in compact form, are read or refused, and never panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|parts: (Vec<u8>, Vec<u8>, Vec<u8>)| {
    let (header, claims, text) = parts;
    stepgate::identity::fuzzing::read(&header, &claims);
    stepgate::identity::fuzzing::read_text(&text);
});
