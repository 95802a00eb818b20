//! What keeps the memory of a gateway to itself: account key, tokens and the callers' tokens are in it.
//!
//! A core file would be a copy of that on a disk, and another process of the same user could read it. Both are ruled out before
//! the configuration is read, whatever the process was started with; a system that does not let them be ruled out starts no
//! gateway. Root can still read all memory.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Forbids core files, and on Linux reading by others (`PR_SET_DUMPABLE`, see prctl(2)).
pub(crate) fn keep_private() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}
