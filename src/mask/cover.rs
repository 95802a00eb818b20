//! Answers, with what is masked covered.
//!
//! What is not on the way to a masked member is copied as it was written, to the byte: numbers keep their digits, members their
//! order, and a member that comes twice comes twice, covered both times.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Answer, Mask, Pointer, Show, pointer::is_of_all, query::Shape};

/// What stands in the place of a masked member, and before what is shown of its end.
const COVER: &str = "****";
/// Fewest characters of a text of which the end is shown.
const LONG_ENOUGH: usize = 8;
/// Characters at its end.
const END: usize = 4;
/// Deepest that an answer is followed; Cosmos nests items 128 deep.
const DEEPEST: usize = 256;

/// An answer with its masked members covered.
#[derive(Clone, PartialEq, Debug)]
pub struct Covered {
    /// The body.
    pub body: Vec<u8>,
    /// The pointers that covered something, in order.
    pub masked: Vec<Pointer>,
}

/// An answer that is not of the form that the question asks for, so that nobody knows what is in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("Cosmos' answer is not of the form that the question asks for, and a mask applies to it")]
pub struct Unreadable;

pub(super) fn cover(mask: &Mask, answer: &Answer, body: &[u8]) -> Result<Covered, Unreadable> {
    if *answer == Answer::NoItem || body.is_empty() {
        return Ok(Covered { body: body.to_vec(), masked: Vec::new() });
    }
    let mut cover = Cover { mask, found: vec![false; mask.pointers().len()], out: String::with_capacity(body.len()) };
    let body: &RawValue = serde_json::from_slice(body).map_err(|_| Unreadable)?;
    match answer {
        Answer::NoItem => cover.copy(body)?,
        Answer::Item => cover.item(body)?,
        Answer::Page { shape, wrapped } => cover.page(body, shape, *wrapped)?,
        Answer::Results => {
            let results: Vec<&RawValue> = read(body)?;
            cover
                .list(&results, |cover, result| cover.members_named(result, &["resourceBody"], Cover::item_or_null))?;
        }
    }
    let found = mask.pointers().iter().zip(&cover.found).filter(|(_, found)| **found);
    Ok(Covered { masked: found.map(|(pointer, _)| pointer.clone()).collect(), body: cover.out.into_bytes() })
}

struct Cover<'m> {
    mask: &'m Mask,
    /// Which of the mask's pointers covered something.
    found: Vec<bool>,
    out: String,
}

/// A pointer of the mask, by its number, and how many of its names are behind.
type Under = (usize, usize);

impl Cover<'_> {
    fn page(&mut self, page: &RawValue, shape: &Shape, wrapped: bool) -> Result<(), Unreadable> {
        let mut pages = 0;
        self.members_named(page, &["Documents"], |cover, rows| {
            pages += 1;
            let rows: Vec<&RawValue> = read(rows)?;
            cover.list(&rows, |cover, row| cover.row(row, shape, wrapped))
        })?;
        if pages == 1 { Ok(()) } else { Err(Unreadable) }
    }

    fn row(&mut self, row: &RawValue, shape: &Shape, wrapped: bool) -> Result<(), Unreadable> {
        if wrapped {
            let row = self.aside(|cover| cover.item(row))?;
            // A row that is not wrapped is an item, whose own members may have these names; it is covered already.
            return self.members_named(&row, &["current", "previous"], Self::item_or_else);
        }
        if shape.is_whole() {
            return self.item(row);
        }
        if shape.members().is_empty() {
            self.out.push_str(row.get());
            return Ok(());
        }
        let members: Vec<&str> = shape.members().iter().map(String::as_str).collect();
        let mut found = 0;
        self.members_named(row, &members, |cover, item| {
            found += 1;
            cover.item(item)
        })?;
        // An item under another name than the query's would be one that is not covered.
        if found == members.len() { Ok(()) } else { Err(Unreadable) }
    }

    fn copy(&mut self, value: &RawValue) -> Result<(), Unreadable> {
        self.out.push_str(value.get());
        Ok(())
    }

    /// What `write` writes, as a value of its own.
    fn aside(&mut self, write: impl FnOnce(&mut Self) -> Result<(), Unreadable>) -> Result<Box<RawValue>, Unreadable> {
        let before = std::mem::take(&mut self.out);
        let written = write(self);
        let aside = std::mem::replace(&mut self.out, before);
        written?;
        RawValue::from_string(aside).map_err(|_| Unreadable)
    }

    /// What is an item, if it is one.
    fn item_or_else(&mut self, value: &RawValue) -> Result<(), Unreadable> {
        if value.get().starts_with('{') { self.item(value) } else { self.copy(value) }
    }

    /// A whole item, or that there is none.
    fn item_or_null(&mut self, item: &RawValue) -> Result<(), Unreadable> {
        if item.get() == "null" { self.copy(item) } else { self.item(item) }
    }

    /// A whole item.
    fn item(&mut self, item: &RawValue) -> Result<(), Unreadable> {
        if !item.get().starts_with('{') {
            return Err(Unreadable);
        }
        let all: Vec<Under> = (0..self.found.len()).map(|pointer| (pointer, 0)).collect();
        self.value(item, &all, 0)
    }

    fn value(&mut self, value: &RawValue, under: &[Under], depth: usize) -> Result<(), Unreadable> {
        let mut show = None;
        for (number, passed) in under {
            let Some(pointer) = self.mask.pointers().get(*number) else { continue };
            if pointer.names().len() == *passed {
                // `Nothing` is less than `End`: of two the one that shows less decides.
                show = Some(show.map_or(pointer.show(), |show: Show| show.min(pointer.show())));
                if let Some(found) = self.found.get_mut(*number) {
                    *found = true;
                }
            }
        }
        if let Some(show) = show {
            self.text(&shown(value, show));
            return Ok(());
        }
        if depth > DEEPEST {
            return Err(Unreadable);
        }
        match value.get().as_bytes().first() {
            Some(b'{') => {
                let Members(members) = read(value)?;
                self.object(&members, |cover, name, member| {
                    let inside = cover.step_into(under, name);
                    if inside.is_empty() { cover.copy(member) } else { cover.value(member, &inside, depth + 1) }
                })
            }
            Some(b'[') => {
                let elements: Vec<&RawValue> = read(value)?;
                let inside = self.step_into_elements(under);
                self.list(&elements, |cover, element| cover.value(element, &inside, depth + 1))
            }
            _ => self.copy(value),
        }
    }

    fn name_at(&self, (number, passed): Under) -> Option<&str> {
        self.mask.pointers().get(number)?.names().get(passed).map(|name| &**name)
    }

    fn step_into(&self, under: &[Under], member: &str) -> Vec<Under> {
        let on_the_way = under.iter().filter(|at| self.name_at(**at).is_some_and(|name| name == "*" || name == member));
        on_the_way.map(|(number, passed)| (*number, passed + 1)).collect()
    }

    fn step_into_elements(&self, under: &[Under]) -> Vec<Under> {
        let step = |at: &Under| if self.name_at(*at).is_some_and(is_of_all) { (at.0, at.1 + 1) } else { *at };
        under.iter().map(step).collect()
    }

    /// An object of which the members of these names are written by `write`, and the others copied.
    fn members_named(
        &mut self,
        object: &RawValue,
        names: &[&str],
        mut write: impl FnMut(&mut Self, &RawValue) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        let Members(members) = read(object)?;
        self.object(
            &members,
            |cover, name, member| {
                if names.contains(&name) { write(cover, member) } else { cover.copy(member) }
            },
        )
    }

    fn object(
        &mut self,
        members: &[(Cow<'_, str>, &RawValue)],
        mut write: impl FnMut(&mut Self, &str, &RawValue) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        self.out.push('{');
        for (position, (name, member)) in members.iter().enumerate() {
            if position > 0 {
                self.out.push(',');
            }
            self.text(name);
            self.out.push(':');
            write(self, name, member)?;
        }
        self.out.push('}');
        Ok(())
    }

    fn list(
        &mut self,
        elements: &[&RawValue],
        mut write: impl FnMut(&mut Self, &RawValue) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        self.out.push('[');
        for (position, element) in elements.iter().enumerate() {
            if position > 0 {
                self.out.push(',');
            }
            write(self, element)?;
        }
        self.out.push(']');
        Ok(())
    }

    fn text(&mut self, text: &str) {
        self.out.push_str(&serde_json::Value::from(text).to_string());
    }
}

/// What is shown in the place of a value.
fn shown(value: &RawValue, show: Show) -> String {
    let text: Option<Cow<'_, str>> = match show {
        Show::Nothing => None,
        Show::End => serde_json::from_str(value.get()).ok(),
    };
    let end = text.and_then(|text| {
        let length = text.chars().count();
        (length >= LONG_ENOUGH).then(|| text.chars().skip(length - END).collect::<String>())
    });
    end.map_or_else(|| COVER.to_owned(), |end| format!("{COVER}{end}"))
}

fn read<'a, T: Deserialize<'a>>(value: &'a RawValue) -> Result<T, Unreadable> {
    serde_json::from_str(value.get()).map_err(|_| Unreadable)
}

/// The members of an object as they come.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}
