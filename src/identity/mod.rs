//! Who asks: the one maker of a `VerifiedSubject`.

mod subject;

pub use subject::VerifiedSubject;
