//! The integration tests: one binary, through real sockets.

mod layering;
