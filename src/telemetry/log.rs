//! The log's layer: an event becomes one line of JSON.
//!
//! The line is written into bytes at once. The formatter that `tracing-subscriber` has for JSON writes every piece of it through
//! the standard library's formatting, which checks each piece again, and half of what a line cost went there.

use std::{fmt, io::Write as _};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, fmt::MakeWriter, layer::Context};

use crate::json::{self, Object};

/// About the length of a request's line, in bytes.
const USUAL: usize = 512;

/// Writes each event as a line to what `W` makes.
#[derive(Debug)]
pub(super) struct Log<W>(pub(super) W);

impl<S: Subscriber, W: for<'a> MakeWriter<'a> + 'static> Layer<S> for Log<W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // Of a log that cannot be written nobody is left to be told.
        let _ = self.0.make_writer_for(event.metadata()).write_all(&line(event));
    }
}

/// The event as JSON, with its newline: when, how grave, what it says, and who says it.
fn line(event: &Event<'_>) -> Vec<u8> {
    let mut line = Vec::with_capacity(USUAL);
    json::object(&mut line, |it| {
        it.display("timestamp", &format_args!("{:.6}", jiff::Timestamp::now()));
        it.text("level", event.metadata().level().as_str());
        event.record(&mut Fields(it));
        it.text("target", event.metadata().target());
    });
    line.push(b'\n');
    line
}

/// Writes the fields of an event.
struct Fields<'a, 'b>(&'a mut Object<'b>);

impl Visit for Fields<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.text(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.value(field.name(), &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.value(field.name(), &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.value(field.name(), &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.value(field.name(), &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.display(field.name(), &format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use serde_json::Value;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let written = Written::default();
        let writer = { written.clone() };
        let subscriber = tracing_subscriber::registry().with(Log(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let absent: Option<&str> = None;
            tracing::warn!(target: "stepgate::here", text = "a \"quote\"\nand a line", absent, count = 3_u64, ms = 0.5, "it {}", "happened");
            tracing::info!(error = %"second");
        });
        let bytes = written.0.lock().unwrap();
        let lines: Vec<&str> = std::str::from_utf8(&bytes).unwrap().lines().collect();
        let [first, second] = lines.as_slice() else { panic!("{lines:?}") };
        let event: Value = serde_json::from_str(first).unwrap();
        let keys: Vec<&String> = event.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["timestamp", "level", "message", "text", "count", "ms", "target"]);
        assert_eq!(event["message"], "it happened");
        assert_eq!(event["text"], "a \"quote\"\nand a line");
        assert_eq!((&event["level"], &event["target"]), (&"WARN".into(), &"stepgate::here".into()));
        let when = event["timestamp"].as_str().unwrap();
        assert!(when.ends_with('Z') && when.len() == "2026-11-26T15:52:52.382464Z".len(), "{when}");
        assert_eq!(serde_json::from_str::<Value>(second).unwrap()["error"], "second");
    }
}
