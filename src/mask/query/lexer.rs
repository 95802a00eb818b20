//! From a query's text to its tokens.

use super::Exposed;

/// A token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Token {
    /// A keyword or a name.
    Word(String),
    /// `@name`
    Parameter,
    /// A number; whether it is one that can count positions.
    Number {
        /// Whether it is digits alone.
        whole: bool,
    },
    /// A text, without its quotation marks.
    Text(String),
    /// Punctuation or an operator.
    Symbol(&'static str),
}

/// The symbols, longer ones before those that begin like them.
const SYMBOLS: [&str; 28] = [
    "!=", "<>", "<=", ">=", "??", "||", "(", ")", "[", "]", "{", "}", ",", ":", ".", "?", "*", "=", "<", ">", "+", "-",
    "/", "%", "&", "|", "^", "~",
];

/// Takes a query apart.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Exposed> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if matches!(first, ' ' | '\t' | '\r' | '\n') {
            rest = rest.get(1..).unwrap_or_default();
            continue;
        }
        if rest.starts_with("--") || rest.starts_with("/*") || rest.starts_with("//") {
            return Err(Exposed::Text("it has a comment"));
        }
        let (token, length) = next(first, rest)?;
        tokens.push(token);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(tokens)
}

fn next(first: char, rest: &str) -> Result<(Token, usize), Exposed> {
    let while_ = |from: usize, wanted: fn(u8) -> bool| {
        rest.bytes().skip(from).position(|byte| !wanted(byte)).map_or(rest.len(), |length| from + length)
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if first.is_ascii_alphabetic() || first == '_' {
        let end = while_(0, is_name);
        return Ok((Token::Word(rest.get(..end).unwrap_or_default().to_owned()), end));
    }
    if first == '@' {
        let end = while_(1, is_name);
        return if end > 1 { Ok((Token::Parameter, end)) } else { Err(Exposed::Text("it has a `@` without a name")) };
    }
    if first.is_ascii_digit() {
        return number(rest);
    }
    if matches!(first, '\'' | '"') {
        return quoted(first, rest);
    }
    let symbol = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol));
    let symbol = symbol.ok_or(Exposed::Text("it has a character that is none of the language's"))?;
    Ok((Token::Symbol(symbol), symbol.len()))
}

/// Digits, perhaps with a fraction and an exponent, and nothing of a name after them.
fn number(rest: &str) -> Result<(Token, usize), Exposed> {
    let bytes = rest.as_bytes();
    let digits = |from: usize| bytes.iter().skip(from).take_while(|byte| byte.is_ascii_digit()).count();
    let mut end = digits(0);
    let mut whole = true;
    if bytes.get(end) == Some(&b'.') && digits(end + 1) > 0 {
        end += 1 + digits(end + 1);
        whole = false;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        if digits(end + 1 + sign) > 0 {
            end += 1 + sign + digits(end + 1 + sign);
            whole = false;
        }
    }
    match bytes.get(end) {
        Some(after) if after.is_ascii_alphanumeric() || matches!(after, b'_' | b'.') => {
            Err(Exposed::Text("it has a number that runs into something else"))
        }
        _ => Ok((Token::Number { whole }, end)),
    }
}

/// A text that every reader ends at the same place.
fn quoted(mark: char, rest: &str) -> Result<(Token, usize), Exposed> {
    let inside = rest.get(1..).unwrap_or_default();
    let length = inside.find(mark).ok_or(Exposed::Text("it has a text without an end"))?;
    let text = inside.get(..length).unwrap_or_default();
    if text.contains(['\\', '\'', '"']) || text.chars().any(char::is_control) {
        return Err(Exposed::Text("it has a text with a backslash, a quotation mark or a control character"));
    }
    Ok((Token::Text(text.to_owned()), length + 2))
}
