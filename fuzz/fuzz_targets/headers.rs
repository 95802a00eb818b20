//! The extractor: whatever stands in the two headers, there is one token, none, or a refusal, and never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|values: (Vec<u8>, Vec<u8>, bool)| {
    let (authorization, own, twice) = values;
    stepgate::identity::fuzzing::extract(&authorization, &own, twice);
});
