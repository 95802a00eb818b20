//! What is masked: a pointer to a member, and when a path meets it.

use std::{fmt, sync::Arc};

/// Members that name an item or a version of it: paths, headers and pages carry them whatever is masked.
const NAMES: [&str; 6] = ["id", "_rid", "_self", "_etag", "_ts", "_attachments"];
/// Most names in a pointer.
const LONGEST: usize = 32;

/// A JSON pointer (RFC 6901) to a member that is masked, and what of it is shown.
///
/// `*` stands for every member or element. Through an array a pointer leads to every element, whether it says `*`, a number or
/// nothing there: a name that is neither is looked for in each of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pointer {
    names: Arc<[Box<str>]>,
    show: Show,
}

/// What is shown of a masked member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Show {
    /// `redact`: nothing.
    Nothing,
    /// `partial`: of a text of at least eight characters the last four; of anything else nothing.
    End,
}

/// The text is no pointer to a member that can be masked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MalformedPointer {
    /// Not RFC 6901.
    #[error("a JSON pointer begins with `/`, and writes `~` as ~0 and `/` as ~1")]
    NotAPointer,
    /// A name is empty.
    #[error("a JSON pointer to a member has no empty name")]
    Empty,
    /// Too long.
    #[error("a JSON pointer here has at most {LONGEST} names")]
    TooLong,
    /// A name of the item.
    #[error("it names the item itself, in addresses and headers too, and cannot be masked")]
    Names,
}

impl Pointer {
    /// Reads a pointer.
    pub fn parse(text: &str, show: Show) -> Result<Self, MalformedPointer> {
        let names = split(text).ok_or(MalformedPointer::NotAPointer)?;
        if names.len() > LONGEST {
            return Err(MalformedPointer::TooLong);
        }
        if names.iter().any(|name| name.is_empty()) {
            return Err(MalformedPointer::Empty);
        }
        if let [only] = names.as_slice()
            && (NAMES.contains(&&**only) || only == "*")
        {
            return Err(MalformedPointer::Names);
        }
        Ok(Self { names: names.into_iter().map(String::into_boxed_str).collect(), show })
    }

    /// What is shown of the member.
    pub fn show(&self) -> Show {
        self.show
    }

    pub(super) fn names(&self) -> &[Box<str>] {
        &self.names
    }

    /// Whether this covers at least as much as `other` does.
    pub(super) fn hides(&self, other: &Self) -> bool {
        let outer = other.names.get(..self.names.len()).is_some_and(|names| *names == *self.names);
        outer && (self.show == Show::Nothing || (self.names.len() == other.names.len() && other.show == Show::End))
    }

    /// Whether a path may lead to the member, to something in it, or to something that holds it.
    pub(super) fn meets(&self, path: &[Step]) -> bool {
        // How many names the path may have passed: a step that may be into an element may pass none.
        let mut passed = vec![0];
        for step in path {
            let mut next = Vec::new();
            for count in passed {
                let Some(name) = self.names.get(count) else { return true };
                if step.may_be_element() {
                    next.push(if is_of_all(name) { count + 1 } else { count });
                }
                if step.may_be(name) {
                    next.push(count + 1);
                }
            }
            next.sort_unstable();
            next.dedup();
            passed = next;
        }
        !passed.is_empty()
    }
}

/// Whether a name stands for every element of an array.
pub(super) fn is_of_all(name: &str) -> bool {
    name == "*" || name == "-" || name.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.names.iter().try_for_each(|name| write!(f, "/{}", name.replace('~', "~0").replace('/', "~1")))
    }
}

/// A step of a path that a request writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Into the member of this name.
    Member(String),
    /// Into an element.
    Element,
    /// Into a member of this name or into an element: a patch does not say which.
    Either(String),
}

impl Step {
    fn may_be_element(&self) -> bool {
        matches!(self, Self::Element | Self::Either(_))
    }

    fn may_be(&self, name: &str) -> bool {
        match self {
            Self::Member(own) | Self::Either(own) => name == "*" || own == name,
            Self::Element => false,
        }
    }
}

/// The steps of a path as patches write it.
pub(super) fn steps(path: &str) -> Option<Vec<Step>> {
    let step = |name: String| if is_of_all(&name) { Step::Either(name) } else { Step::Member(name) };
    Some(split(path)?.into_iter().map(step).collect())
}

/// A path as reasons write it.
pub(super) fn shown(path: &[Step]) -> String {
    let shown = path.iter().map(|step| match step {
        Step::Member(name) | Step::Either(name) => format!("/{}", name.replace('~', "~0").replace('/', "~1")),
        Step::Element => "/*".to_owned(),
    });
    shown.collect()
}

/// The names of a JSON pointer, unescaped.
fn split(text: &str) -> Option<Vec<String>> {
    let unescape = |name: &str| {
        let broken = name.split('~').skip(1).any(|after| !after.starts_with(['0', '1']));
        (!broken).then(|| name.replace("~1", "/").replace("~0", "~"))
    };
    text.strip_prefix('/')?.split('/').map(unescape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(text: &str) -> Pointer {
        Pointer::parse(text, Show::Nothing).unwrap()
    }

    fn meets(mask: &str, path: &[Step]) -> bool {
        pointer(mask).meets(path)
    }

    fn member(name: &str) -> Step {
        Step::Member(name.to_owned())
    }

    #[test]
    fn what_is_no_pointer_to_a_member_is_told() {
        use MalformedPointer::{Empty, Names, NotAPointer, TooLong};
        for (text, error) in [
            ("", NotAPointer),
            ("card", NotAPointer),
            ("/a~2", NotAPointer),
            ("/", Empty),
            ("/a//b", Empty),
            ("/id", Names),
            ("/_etag", Names),
            ("/*", Names),
        ] {
            assert_eq!(Pointer::parse(text, Show::Nothing), Err(error), "{text}");
        }
        assert_eq!(Pointer::parse(&"/a".repeat(33), Show::End), Err(TooLong));
        assert_eq!(pointer("/a~1b/~0").to_string(), "/a~1b/~0");
        assert!(Pointer::parse("/customer/id", Show::Nothing).is_ok());
    }

    #[test]
    fn a_path_meets_what_it_names_holds_or_is_inside_of() {
        let card = [member("card"), member("number")];
        assert!(meets("/card/number", &card));
        assert!(meets("/card/number", &card[..1]) && meets("/card/number", &[]));
        assert!(meets("/card", &card));
        assert!(!meets("/card/number", &[member("card"), member("brand")]));
        assert!(!meets("/card/number", &[member("number")]) && !meets("/card", &[member("Card")]));
    }

    #[test]
    fn positions_do_not_matter() {
        let path = [member("lines"), Step::Element, member("price")];
        for mask in ["/lines/price", "/lines/*/price", "/lines/0/price", "/lines/-/price"] {
            assert!(meets(mask, &path), "{mask}");
            assert!(meets(mask, &steps("/lines/7/price").unwrap()), "{mask}");
            assert!(meets(mask, &steps("/lines/-").unwrap()), "{mask}");
            assert!(!meets(mask, &[member("lines"), Step::Element, member("article")]), "{mask}");
        }
        assert!(meets("/*/price", &[member("any"), member("price")]));
        assert!(!meets("/*/price", &[member("any"), member("name")]));
    }

    #[test]
    fn a_path_of_many_positions_is_soon_done() {
        let mask = pointer(&format!("{}/z", "/*".repeat(31)));
        let path = |last: &str| -> Vec<Step> {
            std::iter::repeat_n(Step::Either("0".into()), 10_000).chain([member(last)]).collect()
        };
        assert!(mask.meets(&path("z")) && !mask.meets(&path("y")));
    }

    #[test]
    fn what_hides_more_hides_less() {
        let (nothing, end) = (pointer("/a/b"), Pointer::parse("/a/b", Show::End).unwrap());
        assert!(nothing.hides(&end) && !end.hides(&nothing) && end.hides(&end));
        assert!(pointer("/a").hides(&nothing) && !nothing.hides(&pointer("/a")));
        assert!(!Pointer::parse("/a", Show::End).unwrap().hides(&end), "the end of a whole that is no text is nothing");
    }
}
