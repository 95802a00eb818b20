//! The log's way out: lines are collected, and a thread of its own writes what has come together.
//!
//! No request waits for whoever reads the log: when lines come faster than they are read they are dropped, and counted. And no
//! request wakes a thread: the writer looks again a moment after a first line came, so that a busy gateway pays for a write
//! many times in a second and not at every line.

use std::{
    io::{self, Write},
    mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// Most bytes that wait to be written.
const MOST: usize = 4 * 1024 * 1024;
/// How long lines come together before they are written.
const PAUSE: Duration = Duration::from_millis(10);

/// Where lines go; clones are the same place.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    came: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    is_last: bool,
}

/// The thread that writes; dropped, it writes what waits and ends.
#[derive(Debug)]
pub(super) struct LinesWriter {
    lines: Lines,
    thread: Option<JoinHandle<()>>,
}

impl Lines {
    /// Begins to write what comes to `out`.
    pub(super) fn write_to(&self, out: impl Write + Send + 'static) -> io::Result<LinesWriter> {
        let lines = self.clone();
        let thread = thread::Builder::new().name("log".to_owned()).spawn(move || lines.0.write_all(out))?;
        Ok(LinesWriter { lines: self.clone(), thread: Some(thread) })
    }

    /// Lines that found no room.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, line: &[u8]) {
        let mut waiting = self.waiting();
        if waiting.bytes.len() + line.len() > MOST {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let is_first = waiting.bytes.is_empty();
        waiting.bytes.extend_from_slice(line);
        drop(waiting);
        if is_first {
            self.came.notify_one();
        }
    }

    #[allow(clippy::disallowed_methods, reason = "it has a thread of its own")]
    fn write_all(&self, mut out: impl Write) {
        let mut bytes = Vec::new();
        loop {
            let nothing = |waiting: &mut Waiting| waiting.bytes.is_empty() && !waiting.is_last;
            drop(self.came.wait_while(self.waiting(), nothing).unwrap_or_else(PoisonError::into_inner));
            thread::sleep(PAUSE);
            let is_last = {
                let mut waiting = self.waiting();
                mem::swap(&mut waiting.bytes, &mut bytes);
                waiting.is_last
            };
            // Nobody is left to be told that the log itself cannot be written.
            let _ = out.write_all(&bytes).and_then(|()| out.flush());
            bytes.clear();
            if is_last {
                return;
            }
        }
    }
}

impl Drop for LinesWriter {
    fn drop(&mut self) {
        self.lines.0.waiting().is_last = true;
        self.lines.0.came.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.take(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Says what it is given, and takes it only when it is let.
    struct Slow(mpsc::Sender<Vec<u8>>, mpsc::Receiver<()>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).unwrap();
            self.1.recv().map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn say(mut lines: &Lines, line: &[u8]) {
        lines.write_all(line).unwrap();
    }

    #[test]
    fn what_is_said_is_written_in_order_and_to_the_last_line() {
        let (lines, (wrote, written)) = (Lines::default(), mpsc::channel());
        let (go, gone) = mpsc::channel();
        let writer = lines.write_to(Slow(wrote, gone)).unwrap();
        say(&lines, b"1\n");
        assert!(written.recv().unwrap().starts_with(b"1\n"));
        say(&lines, b"2\n");
        say(&lines, b"3\n");
        go.send(()).unwrap();
        go.send(()).unwrap();
        drop(go);
        drop(writer);
        let rest: Vec<u8> = written.iter().flatten().collect();
        assert_eq!(rest, b"2\n3\n");
        assert_eq!(lines.dropped(), 0);
    }

    #[test]
    fn nobody_waits_for_a_reader_that_does_not_read() {
        let (lines, (wrote, written)) = (Lines::default(), mpsc::channel());
        let (go, gone) = mpsc::channel();
        let writer = lines.write_to(Slow(wrote, gone)).unwrap();
        say(&lines, b"stuck\n");
        written.recv().unwrap();
        say(&lines, &vec![b'x'; MOST]);
        say(&lines, b"too much\n");
        assert_eq!(lines.dropped(), 1);
        drop(go);
        drop(writer);
    }
}
