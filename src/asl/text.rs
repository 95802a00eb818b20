//! Texts of a definition, as far as they can be known before it runs.
//!
//! A URL such as `States.Format('https://gateway/dbs/shop/colls/orders/docs/{}', $.id)` is known but for its id. Both languages
//! are read into the same pieces, and both spellings of an expression into the same one, so that no rule asks which it was.

use std::{collections::HashMap, fmt};

use serde_json::Value;

/// The language of a state's expressions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Language {
    JsonPath,
    Jsonata,
}

/// A part of a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Piece {
    /// Written so.
    Literal(String),
    /// `${Name}`: put in when the definition is deployed.
    Substitution(String),
    /// An expression, evaluated when the state runs; written the JSONPath way.
    Dynamic(String),
}

/// A text in pieces. Two are equal when they are bound to be the same at the same point of a run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Text(Vec<Piece>);

/// Variables that hold one literal text wherever they are assigned.
pub(super) type Constants = HashMap<String, String>;

impl Text {
    /// The text of a member: its value, and whether its name says (`.$`) that the value is an expression.
    pub(super) fn of(value: &Value, expression: bool, language: Language, constants: &Constants) -> Option<Self> {
        let text = match value {
            Value::String(text) => text.as_str(),
            Value::Number(_) | Value::Bool(_) => return Some(Self::literal(&value.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => return None,
        };
        Some(match (language, inside_jsonata(text)) {
            (Language::Jsonata, Some(inner)) => Self::jsonata(inner, constants),
            (Language::JsonPath, _) if expression => Self::json_path(text, constants),
            _ => Self::literal(text),
        })
    }

    /// What an expression gives.
    pub(super) fn dynamic(expression: String) -> Self {
        Self(vec![Piece::Dynamic(expression)])
    }

    /// A text as it stands, but for what deployment puts in.
    fn literal(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, name, after)) = substitution(rest) {
            pieces.extend([Piece::Literal(before.to_owned()), Piece::Substitution(name.to_owned())]);
            rest = after;
        }
        pieces.push(Piece::Literal(rest.to_owned()));
        Self::joined(pieces)
    }

    fn json_path(expression: &str, constants: &Constants) -> Self {
        let expression = expression.trim();
        if let Some(constant) = constant(expression, constants) {
            return Self::literal(constant);
        }
        let format = expression.strip_prefix("States.Format(").and_then(|rest| rest.strip_suffix(')'));
        let Some(arguments) = format.map(|arguments| split(arguments, ',')) else {
            return Self(vec![Piece::Dynamic(expression.to_owned())]);
        };
        let mut arguments = arguments.into_iter().map(str::trim);
        let Some(template) = arguments.next().and_then(quoted) else {
            return Self(vec![Piece::Dynamic(expression.to_owned())]);
        };
        let mut pieces = Vec::new();
        let mut parts = template.split("{}");
        pieces.extend(parts.next().map(|part| Self::literal(part).0).into_iter().flatten());
        for part in parts {
            let argument = arguments.next().unwrap_or("?");
            pieces
                .extend(quoted(argument).map_or_else(|| Self::json_path(argument, constants), |t| Self::literal(&t)).0);
            pieces.extend(Self::literal(part).0);
        }
        Self::joined(pieces)
    }

    fn jsonata(expression: &str, constants: &Constants) -> Self {
        let mut pieces = Vec::new();
        for operand in split(expression, '&') {
            let operand = unwrapped(operand.trim());
            pieces.extend(match (quoted(operand), constant(operand, constants)) {
                (Some(text), _) => Self::literal(&text).0,
                (None, Some(constant)) => Self::literal(constant).0,
                (None, None) if split(operand, '&').len() > 1 => Self::jsonata(operand, constants).0,
                (None, None) => vec![Piece::Dynamic(as_json_path(operand))],
            });
        }
        Self::joined(pieces)
    }

    /// The pieces without empty ones, and neighbouring literals as one.
    fn joined(pieces: Vec<Piece>) -> Self {
        let mut joined: Vec<Piece> = Vec::new();
        for piece in pieces {
            match (joined.last_mut(), piece) {
                (_, Piece::Literal(text)) if text.is_empty() => {}
                (Some(Piece::Literal(so_far)), Piece::Literal(text)) => so_far.push_str(&text),
                (_, piece) => joined.push(piece),
            }
        }
        Self(joined)
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// The whole text, where it is known.
    pub(super) fn known(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The text before the first piece that is not known.
    pub(super) fn beginning(&self) -> &str {
        match self.0.first() {
            Some(Piece::Literal(text)) => text,
            _ => "",
        }
    }

    /// Its expressions, as JSONPath writes them.
    pub(super) fn expressions(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Dynamic(expression) => Some(expression.as_str()),
            Piece::Literal(_) | Piece::Substitution(_) => None,
        })
    }

    /// The parts between `separator`s that are written so.
    pub(super) fn split(&self, separator: char) -> Vec<Self> {
        let mut parts = vec![Vec::new()];
        for piece in &self.0 {
            let Piece::Literal(text) = piece else {
                parts.last_mut().into_iter().for_each(|part| part.push(piece.clone()));
                continue;
            };
            for (index, text) in text.split(separator).enumerate() {
                if index > 0 {
                    parts.push(Vec::new());
                }
                parts.last_mut().into_iter().for_each(|part| part.push(Piece::Literal(text.to_owned())));
            }
        }
        parts.into_iter().map(Self::joined).collect()
    }

    /// The text with `stand_in` for every piece that is not known.
    pub(super) fn filled(&self, stand_in: &str) -> String {
        let texts = self.0.iter().map(|piece| match piece {
            Piece::Literal(text) => text.as_str(),
            Piece::Substitution(_) | Piece::Dynamic(_) => stand_in,
        });
        texts.collect()
    }

    /// What stands between a beginning and an end that are written so.
    pub(super) fn between(&self, beginning: &str, end: &str) -> Option<Self> {
        match self.0.as_slice() {
            [Piece::Literal(first), inner @ .., Piece::Literal(last)] if first == beginning && last == end => {
                Some(Self(inner.to_vec()))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Literal(text) => f.write_str(text),
            Piece::Substitution(name) => write!(f, "${{{name}}}"),
            Piece::Dynamic(expression) => write!(f, "{{{expression}}}"),
        })
    }
}

/// The expression in a JSONata string.
pub(super) fn inside_jsonata(text: &str) -> Option<&str> {
    text.trim().strip_prefix("{%")?.strip_suffix("%}").map(str::trim)
}

/// `before`, `Name` and `after` of the first `${Name}`.
fn substitution(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("${")?;
    let (name, after) = rest.split_once('}')?;
    Some((before, name, after))
}

fn constant<'c>(expression: &str, constants: &'c Constants) -> Option<&'c str> {
    constants.get(expression.strip_prefix('$')?).map(String::as_str)
}

/// JSONata's names for a state's input and context, in JSONPath's.
fn as_json_path(expression: &str) -> String {
    expression.replace("$states.input", "$").replace("$states.context", "$$")
}

/// A JSONata operand without the parentheses around it, and without what only makes a text of it, or one that fits a URL.
fn unwrapped(operand: &str) -> &str {
    let name = ["$string", "$encodeUrlComponent"].into_iter().find_map(|name| operand.strip_prefix(name));
    let inner = name.unwrap_or(operand).trim_start();
    match inner.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        // `(a) & (b)` begins and ends with parentheses that do not belong together.
        Some(inner) if split(inner, '\0').len() == 1 && is_balanced(inner) => unwrapped(inner.trim()),
        _ => operand,
    }
}

fn is_balanced(text: &str) -> bool {
    let mut depth = 0_i32;
    scan(text, |_, c, quoted| {
        if !quoted && depth >= 0 {
            depth += i32::from(c == '(') - i32::from(c == ')');
        }
    });
    depth == 0
}

/// The content of a quoted text, with its escapes read.
fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let (mut content, mut escaped) = (String::new(), false);
    for c in inner.chars() {
        match c {
            '\\' if !escaped => escaped = true,
            c if c == quote && !escaped => return None,
            c => {
                content.push(c);
                escaped = false;
            }
        }
    }
    (!escaped).then_some(content)
}

/// The parts of an expression between separators that stand outside of quotes and brackets.
pub(super) fn split(expression: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_i32);
    scan(expression, |at, c, quoted| match c {
        _ if quoted => {}
        '(' | '[' | '{' => depth += 1,
        ')' | ']' | '}' => depth -= 1,
        c if c == separator && depth == 0 => {
            parts.extend(expression.get(start..at));
            start = at + c.len_utf8();
        }
        _ => {}
    });
    parts.extend(expression.get(start..));
    parts
}

/// Every character with its place, and whether it stands in quotes.
fn scan(text: &str, mut see: impl FnMut(usize, char, bool)) {
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in text.char_indices() {
        let before = quote;
        match (quote, c) {
            (Some(_), '\\') if !escaped => {
                escaped = true;
                see(at, c, true);
                continue;
            }
            (Some(open), c) if c == open && !escaped => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            _ => {}
        }
        escaped = false;
        see(at, c, before.is_some() || quote.is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(expression: &str) -> String {
        let constants = Constants::from([("gateway".to_owned(), "https://g".to_owned())]);
        Text::of(&expression.into(), true, Language::JsonPath, &constants).unwrap().to_string()
    }

    fn jsonata(expression: &str) -> String {
        let constants = Constants::from([("gateway".to_owned(), "https://g".to_owned())]);
        Text::of(&format!("{{% {expression} %}}").into(), false, Language::Jsonata, &constants).unwrap().to_string()
    }

    #[test]
    fn json_path_texts_are_known_as_far_as_they_can_be() {
        assert_eq!(path("States.Format('https://g/docs/{}/{}', $.id, 'x')"), "https://g/docs/{$.id}/x");
        assert_eq!(
            path("States.Format('{}/docs/{}', $gateway, States.Format('o-{}', $.id))"),
            "https://g/docs/o-{$.id}"
        );
        assert_eq!(path("States.Format('it\\'s {}', $.a[0,1])"), "it's {$.a[0,1]}");
        assert_eq!(path("$.url"), "{$.url}");
        assert_eq!(path("States.Hash($.a, 'SHA-256')"), "{States.Hash($.a, 'SHA-256')}");
        assert_eq!(path("States.Format('${Url}/{}', $.id)"), "${Url}/{$.id}");
    }

    #[test]
    fn jsonata_texts_are_read_into_the_same_pieces() {
        assert_eq!(jsonata("'https://g/docs/' & $states.input.id & \"/x\""), "https://g/docs/{$.id}/x");
        assert_eq!(jsonata("$gateway & ('/docs/' & $string($states.input.id))"), "https://g/docs/{$.id}");
        assert_eq!(jsonata("'a & b'"), "a & b");
        assert_eq!(jsonata("$states.context.Execution.Id"), "{$$.Execution.Id}");
        assert_eq!(jsonata("'/docs/' & $encodeUrlComponent($states.input.id)"), "/docs/{$.id}");
        assert_eq!(jsonata("($a) & ($b)"), "{$a}{$b}");
    }

    #[test]
    fn a_text_is_taken_apart_where_it_is_written_so() {
        let text = Text::of(&"https://${Host}/dbs/shop".into(), false, Language::JsonPath, &Constants::new()).unwrap();
        let parts: Vec<_> = text.split('/').iter().map(Text::to_string).collect();
        assert_eq!(parts, ["https:", "", "${Host}", "dbs", "shop"]);
        assert_eq!(text.filled("x"), "https://x/dbs/shop");
        assert_eq!((text.known(), text.beginning()), (None, "https://"));
    }
}
