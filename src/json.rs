//! JSON that only leaves: the lines of the audit log and of the gateway's own log, written straight into bytes.
//!
//! `serde_json` looks at a string byte by byte, names of members included, and a record of the audit log has a hundred members: a
//! fifth of what a request took outside of hashing went there. Here names stand as they are, since they are literals of this
//! program, and a text is looked at eight bytes at a time; one that needs escapes, and every other kind of value, is left to
//! `serde_json`.

use std::fmt::{self, Display, Write as _};

use serde::Serialize;

/// An object that is being written: what is in it so far.
#[derive(Debug)]
pub struct Object<'a>(&'a mut Vec<u8>);

/// Writes an object after what is in `out`.
pub fn object(out: &mut Vec<u8>, members: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    members(&mut Object(out));
    out.push(b'}');
}

impl Object<'_> {
    /// A member that is a string.
    #[inline]
    pub fn text(&mut self, name: &'static str, value: &str) {
        self.name(name);
        self.string(value);
    }

    /// A member that is a string, as `value` is displayed.
    #[inline]
    pub fn display(&mut self, name: &'static str, value: &impl Display) {
        self.name(name);
        self.displayed(format_args!("{value}"));
    }

    /// A member of any other kind; `null` where it has no form in JSON.
    #[inline]
    pub fn value(&mut self, name: &'static str, value: &(impl Serialize + ?Sized)) {
        self.name(name);
        self.write(value);
    }

    /// A member that is a string, where there is one.
    pub fn maybe_text(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// A member of any other kind, where there is one.
    pub fn maybe(&mut self, name: &'static str, value: Option<&impl Serialize>) {
        if let Some(value) = value {
            self.value(name, value);
        }
    }

    /// A member that is an object.
    pub fn object(&mut self, name: &'static str, members: impl FnOnce(&mut Object<'_>)) {
        self.name(name);
        object(self.0, members);
    }

    /// A member that is an array of objects, one for each of `items`.
    pub fn objects<T>(
        &mut self,
        name: &'static str,
        items: impl IntoIterator<Item = T>,
        mut members: impl FnMut(&mut Object<'_>, T),
    ) {
        self.name(name);
        self.0.push(b'[');
        for (number, item) in items.into_iter().enumerate() {
            if number > 0 {
                self.0.push(b',');
            }
            object(self.0, |it| members(it, item));
        }
        self.0.push(b']');
    }

    /// In each place of its own, where the name is known: then it is a few stores, and no call that copies.
    #[inline(always)]
    fn name(&mut self, name: &'static str) {
        debug_assert!(is_plain(name.as_bytes()), "`{name}` needs escapes");
        // No value ends in an opening brace.
        if self.0.last() != Some(&b'{') {
            self.0.push(b',');
        }
        self.0.push(b'"');
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn displayed(&mut self, text: fmt::Arguments<'_>) {
        self.0.push(b'"');
        let begun = self.0.len();
        // It fails for a value that refuses to be displayed, of which nothing more is to be had; written as to a file, it would panic.
        let _ = Text(self.0).write_fmt(text);
        let written = self.0.get(begun..).unwrap_or_default();
        if is_plain(written) {
            self.0.push(b'"');
        } else {
            let text = String::from_utf8_lossy(written).into_owned();
            self.0.truncate(begun - 1);
            self.write(&text);
        }
    }

    fn string(&mut self, value: &str) {
        if is_plain(value.as_bytes()) {
            self.0.push(b'"');
            self.0.extend_from_slice(value.as_bytes());
            self.0.push(b'"');
        } else {
            self.write(value);
        }
    }

    fn write(&mut self, value: &(impl Serialize + ?Sized)) {
        let begun = self.0.len();
        if serde_json::to_writer(&mut *self.0, value).is_err() {
            self.0.truncate(begun);
            self.0.extend_from_slice(b"null");
        }
    }
}

/// Takes text as it is.
struct Text<'a>(&'a mut Vec<u8>);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Whether a string stands in JSON as it is (RFC 8259, section 7): without quotes, backslashes and control characters.
fn is_plain(text: &[u8]) -> bool {
    match text.last_chunk::<8>() {
        Some(last) => are_plain(*last) && text.as_chunks::<8>().0.iter().all(|eight| are_plain(*eight)),
        None => text.iter().all(|byte| are_plain([*byte; 8])),
    }
}

/// The same of eight bytes at once. A byte is less than another where the high bit tells so after the subtraction; a borrow can only
/// come from a lower byte that has said so itself.
const fn are_plain(eight: [u8; 8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    const fn less(word: u64, than: u8) -> u64 {
        word.wrapping_sub(ONES * than as u64) & !word & HIGH
    }
    let word = u64::from_ne_bytes(eight);
    let (quote, backslash) = (word ^ (ONES * b'"' as u64), word ^ (ONES * b'\\' as u64));
    less(word, 0x20) | less(quote, 1) | less(backslash, 1) == 0
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn written(members: impl FnOnce(&mut Object<'_>)) -> String {
        let mut out = Vec::new();
        object(&mut out, members);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn members_of_every_kind_stand_in_their_order() {
        let text = written(|it| {
            it.text("text", "a");
            it.object("none", |_| {});
            it.object("object", |inner| {
                inner.value("number", &1.5);
                inner.text("brace", "{");
                inner.value("flag", &true);
            });
            it.objects("objects", ["b", "c"], |inner, item| inner.text("item", item));
            it.objects("no_objects", [""; 0], |_, _| {});
            it.display("display", &format_args!("{}\"", 7));
            it.display("plain", &7);
        });
        let expected = r#"{"text":"a","none":{},"object":{"number":1.5,"brace":"{","flag":true},"objects":[{"item":"b"},{"item":"c"}],"no_objects":[],"display":"7\"","plain":"7"}"#;
        assert_eq!(text, expected);
    }

    /// Half a value would take the line with it.
    #[test]
    fn what_has_no_form_in_json_is_null() {
        let pairs = HashMap::from([((1, 2), 3)]);
        assert_eq!(written(|it| it.value("pairs", &pairs)), r#"{"pairs":null}"#);
        assert_eq!(written(|it| it.value("nan", &f64::NAN)), r#"{"nan":null}"#);
    }

    #[test]
    fn every_byte_is_found_wherever_it_stands() {
        for length in 1..20 {
            for place in 0..length {
                for byte in 0..=127_u8 {
                    let mut text = vec![0xC3; length];
                    text[place] = byte;
                    let expected = byte >= 0x20 && byte != b'"' && byte != b'\\';
                    assert_eq!(is_plain(&text), expected, "byte {byte:#x} at {place} of {length}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_text_is_written_as_serde_json_writes_it(text in any::<String>()) {
            let expected = json!({ "text": text }).to_string();
            prop_assert_eq!(written(|it| it.text("text", &text)), &*expected);
            prop_assert_eq!(written(|it| it.display("text", &text)), expected);
        }

        #[test]
        fn a_text_reads_back_the_same(text in "[ -~\\x00-\\x1f\"\\\\é]{0,40}") {
            let read: Value = serde_json::from_str(&written(|it| it.text("text", &text))).unwrap();
            prop_assert_eq!(&read["text"], &Value::from(text));
        }
    }
}
