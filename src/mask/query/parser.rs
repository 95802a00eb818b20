//! From tokens to what a query names, and where.

use super::{
    Clause, Exposed,
    lexer::{Token, tokens},
};
use crate::mask::pointer::Step;

/// Deepest that expressions may nest.
const DEEPEST: usize = 64;
/// Most steps of a path.
const LONGEST: usize = 128;

/// Functions that say nothing but of their arguments.
const FUNCTIONS: &[&str] = &[
    "ABS",
    "ARRAY_AVG",
    "ARRAY_CONCAT",
    "ARRAY_CONTAINS",
    "ARRAY_CONTAINS_ALL",
    "ARRAY_CONTAINS_ANY",
    "ARRAY_LENGTH",
    "ARRAY_MAX",
    "ARRAY_MEDIAN",
    "ARRAY_MIN",
    "ARRAY_SLICE",
    "ARRAY_SUM",
    "AVG",
    "CEILING",
    "CHOOSE",
    "CONCAT",
    "CONTAINS",
    "COUNT",
    "DATETIMEADD",
    "DATETIMEBIN",
    "DATETIMEDIFF",
    "DATETIMEFROMPARTS",
    "DATETIMEPART",
    "DATETIMETOTICKS",
    "DATETIMETOTIMESTAMP",
    "ENDSWITH",
    "EXP",
    "FLOOR",
    "GETCURRENTDATETIME",
    "GETCURRENTTICKS",
    "GETCURRENTTIMESTAMP",
    "IIF",
    "INDEX_OF",
    "INTADD",
    "INTDIV",
    "INTMOD",
    "INTMUL",
    "INTSUB",
    "IS_ARRAY",
    "IS_BOOL",
    "IS_DEFINED",
    "IS_FINITE_NUMBER",
    "IS_INTEGER",
    "IS_NULL",
    "IS_NUMBER",
    "IS_OBJECT",
    "IS_PRIMITIVE",
    "IS_STRING",
    "LEFT",
    "LENGTH",
    "LOG",
    "LOG10",
    "LOWER",
    "LTRIM",
    "MAX",
    "MIN",
    "NUMBERBIN",
    "POWER",
    "REGEXMATCH",
    "REPLACE",
    "REPLICATE",
    "REVERSE",
    "RIGHT",
    "ROUND",
    "RTRIM",
    "SETDIFFERENCE",
    "SETINTERSECT",
    "SETUNION",
    "SIGN",
    "SQRT",
    "SQUARE",
    "STARTSWITH",
    "STRINGEQUALS",
    "STRINGTOARRAY",
    "STRINGTOBOOLEAN",
    "STRINGTONULL",
    "STRINGTONUMBER",
    "STRINGTOOBJECT",
    "SUBSTRING",
    "SUM",
    "TICKSTODATETIME",
    "TIMESTAMPTODATETIME",
    "TOSTRING",
    "TRIM",
    "TRUNC",
    "UPPER",
];

/// Words with a meaning of their own, which name nothing.
const KEYWORDS: &[&str] = &[
    "AND",
    "ARRAY",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "DESC",
    "DISTINCT",
    "ESCAPE",
    "EXISTS",
    "FALSE",
    "FROM",
    "GROUP",
    "HAVING",
    "IN",
    "JOIN",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "OFFSET",
    "OR",
    "ORDER",
    "RANK",
    "SELECT",
    "TOP",
    "TRUE",
    "UDF",
    "UNDEFINED",
    "VALUE",
    "WHERE",
];

/// What stands between two operands.
const BETWEEN: &[&str] =
    &["=", "!=", "<>", "<", ">", "<=", ">=", "+", "-", "*", "/", "%", "&", "|", "^", "||", "??", "?", ":"];

/// What a query names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Query {
    /// `SELECT *`
    pub(super) star: bool,
    pub(super) distinct: bool,
    /// The entries of SELECT that are the item as a whole.
    pub(super) whole: Vec<Whole>,
    /// Every path, wherever it stands.
    pub(super) paths: Vec<Path>,
    /// What FROM calls the container.
    pub(super) alias: Option<String>,
}

/// An entry of SELECT that is the item as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Whole {
    pub(super) root: String,
    /// Its name in a row; `None` where the row is the item.
    pub(super) name: Option<String>,
}

/// A path from a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Path {
    pub(super) clause: Clause,
    pub(super) root: String,
    pub(super) steps: Vec<Step>,
}

/// Reads a query.
pub(super) fn query(text: &str) -> Result<Query, Exposed> {
    let mut parser = Parser::new(text, Clause::Select)?;
    parser.word("SELECT", "SELECT")?;
    parser.select()?;
    parser.from()?;
    if parser.keyword("WHERE") {
        parser.within(Clause::Where, Parser::expression)?;
    }
    if parser.keyword("GROUP") {
        parser.clause = Clause::GroupBy;
        parser.word("BY", "BY")?;
        parser.within(Clause::GroupBy, |parser| parser.list(Parser::expression))?;
    }
    if parser.keyword("ORDER") {
        parser.clause = Clause::OrderBy;
        parser.word("BY", "BY")?;
        parser.within(Clause::OrderBy, |parser| parser.list(Parser::ordered))?;
    }
    if parser.keyword("OFFSET") {
        parser.clause = Clause::Limit;
        parser.count()?;
        parser.word("LIMIT", "LIMIT")?;
        parser.count()?;
    }
    parser.end()
}

/// Reads the condition of a patch: `FROM c WHERE c.open = true`.
pub(super) fn condition(text: &str) -> Result<Query, Exposed> {
    let mut parser = Parser::new(text, Clause::Condition)?;
    parser.from()?;
    parser.word("WHERE", "WHERE")?;
    parser.within(Clause::Condition, Parser::expression)?;
    parser.end()
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    /// The token after the next.
    second: Vec<Token>,
    clause: Clause,
    depth: usize,
    read: Query,
}

impl Parser {
    fn new(text: &str, clause: Clause) -> Result<Self, Exposed> {
        let tokens = tokens(text)?.into_iter().peekable();
        Ok(Self { tokens, second: Vec::new(), clause, depth: 0, read: Query::default() })
    }

    fn end(mut self) -> Result<Query, Exposed> {
        match self.peek() {
            None => Ok(self.read),
            Some(_) => self.unexpected("the end of the query"),
        }
    }

    fn within(&mut self, clause: Clause, read: impl FnOnce(&mut Self) -> Result<(), Exposed>) -> Result<(), Exposed> {
        self.clause = clause;
        read(self)
    }

    fn peek(&mut self) -> Option<&Token> {
        match self.second.last() {
            Some(_) => self.second.last(),
            None => self.tokens.peek(),
        }
    }

    fn take(&mut self) -> Option<Token> {
        self.second.pop().or_else(|| self.tokens.next())
    }

    fn put_back(&mut self, token: Token) {
        self.second.push(token);
    }

    fn unexpected<T>(&mut self, expected: &'static str) -> Result<T, Exposed> {
        let clause = self.clause;
        let found = match self.peek() {
            None => "its end".to_owned(),
            Some(Token::Word(word)) => format!("`{word}`"),
            Some(Token::Symbol(symbol)) => format!("`{symbol}`"),
            Some(Token::Parameter) => "a parameter".to_owned(),
            Some(Token::Number { .. }) => "a number".to_owned(),
            Some(Token::Text(_)) => "a text".to_owned(),
        };
        Err(Exposed::Grammar { clause, found, expected })
    }

    fn is_keyword(&mut self, keyword: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword))
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let is_next = self.is_keyword(keyword);
        if is_next {
            self.take();
        }
        is_next
    }

    fn word(&mut self, keyword: &str, expected: &'static str) -> Result<(), Exposed> {
        if self.keyword(keyword) { Ok(()) } else { self.unexpected(expected) }
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let is_next = matches!(self.peek(), Some(Token::Symbol(next)) if *next == symbol);
        if is_next {
            self.take();
        }
        is_next
    }

    /// A name that is no keyword.
    fn name(&mut self) -> Option<String> {
        match self.peek() {
            Some(Token::Word(word)) if !is_keyword(word) => match self.take() {
                Some(Token::Word(word)) => Some(word),
                _ => None,
            },
            _ => None,
        }
    }

    fn list(&mut self, mut entry: impl FnMut(&mut Self) -> Result<(), Exposed>) -> Result<(), Exposed> {
        entry(self)?;
        while self.symbol(",") {
            entry(self)?;
        }
        Ok(())
    }

    fn select(&mut self) -> Result<(), Exposed> {
        self.read.distinct = self.keyword("DISTINCT");
        if self.keyword("TOP") {
            self.clause = Clause::Limit;
            self.count()?;
            self.clause = Clause::Select;
        }
        if self.symbol("*") {
            self.read.star = true;
            return Ok(());
        }
        if self.keyword("VALUE") {
            if self.symbol("{") {
                return self.row();
            }
            return match self.whole(&[]) {
                Some(root) => {
                    self.read.whole.push(Whole { root, name: None });
                    Ok(())
                }
                None => self.expression(),
            };
        }
        self.list(|parser| match parser.whole(&[","]) {
            Some(root) => {
                let name = parser.alias()?.unwrap_or_else(|| root.clone());
                parser.read.whole.push(Whole { root, name: Some(name) });
                Ok(())
            }
            None => {
                parser.expression()?;
                parser.alias().map(drop)
            }
        })
    }

    /// The object that each row is: a member of it may be the item as a whole.
    fn row(&mut self) -> Result<(), Exposed> {
        self.members(|parser, name| match parser.whole(&[",", "}"]) {
            Some(root) => {
                parser.read.whole.push(Whole { root, name: Some(name) });
                Ok(())
            }
            None => parser.expression(),
        })?;
        // What comes of the object otherwise is not known.
        match self.peek() {
            None | Some(Token::Word(_)) => Ok(()),
            Some(_) => self.unexpected("FROM"),
        }
    }

    /// A name by itself, before one of these symbols, a word or the end: an entry that is the item as a whole.
    fn whole(&mut self, before: &[&str]) -> Option<String> {
        let name = self.name()?;
        let ends = match self.peek() {
            None | Some(Token::Word(_)) => {
                !["AND", "OR", "NOT", "IN", "BETWEEN", "LIKE"].iter().any(|word| self.is_keyword(word))
            }
            Some(Token::Symbol(symbol)) => before.contains(symbol),
            Some(_) => false,
        };
        if ends {
            return Some(name);
        }
        self.put_back(Token::Word(name));
        None
    }

    /// What an entry of SELECT is called.
    fn alias(&mut self) -> Result<Option<String>, Exposed> {
        let is_named = self.keyword("AS");
        match self.name() {
            None if is_named => self.unexpected("a name"),
            name => Ok(name),
        }
    }

    fn from(&mut self) -> Result<(), Exposed> {
        if !self.keyword("FROM") {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.clause, Clause::From);
        if matches!(self.peek(), Some(Token::Symbol("("))) {
            return Err(Exposed::Subquery(Clause::From));
        }
        let Some(container) = self.name() else { return self.unexpected("the container") };
        let goes_on = [".", "["].iter().any(|symbol| self.symbol(symbol));
        let alias = self.alias()?;
        if goes_on || self.is_keyword("IN") || self.is_keyword("JOIN") || self.symbol(",") {
            return Err(Exposed::Elements);
        }
        self.read.alias = Some(alias.unwrap_or(container));
        self.clause = before;
        Ok(())
    }

    fn count(&mut self) -> Result<(), Exposed> {
        match self.peek() {
            Some(Token::Number { whole: true } | Token::Parameter) => {
                self.take();
                Ok(())
            }
            _ => self.unexpected("a whole number or a parameter"),
        }
    }

    fn ordered(&mut self) -> Result<(), Exposed> {
        self.expression()?;
        let _ = self.keyword("ASC") || self.keyword("DESC");
        Ok(())
    }

    /// Operands with operators between them; what binds tighter does not matter here.
    fn expression(&mut self) -> Result<(), Exposed> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Exposed::Text("its expressions nest too deep"));
        }
        self.operand()?;
        while self.operator() {
            self.operand()?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn operator(&mut self) -> bool {
        let _ = self.keyword("NOT");
        match self.peek() {
            Some(Token::Symbol(symbol)) if BETWEEN.contains(symbol) => self.take().is_some(),
            Some(Token::Word(_)) => {
                ["AND", "OR", "IN", "BETWEEN", "LIKE", "ESCAPE"].iter().any(|word| self.keyword(word))
            }
            _ => false,
        }
    }

    fn operand(&mut self) -> Result<(), Exposed> {
        while self.keyword("NOT") || ["-", "+", "~"].iter().any(|sign| self.symbol(sign)) {}
        match self.take() {
            Some(Token::Number { .. } | Token::Text(_) | Token::Parameter) => Ok(()),
            Some(Token::Symbol("(")) => {
                self.no_subquery()?;
                // `IN` has a list in its brackets; anywhere else Cosmos says what is wrong with one.
                self.list(Self::expression)?;
                self.closing(")", "`)`")
            }
            Some(Token::Symbol("[")) => {
                if self.symbol("]") {
                    return Ok(());
                }
                self.list(Self::expression)?;
                self.closing("]", "`]`")
            }
            Some(Token::Symbol("{")) => self.object(),
            Some(Token::Word(word)) => self.named(word),
            Some(token) => {
                self.put_back(token);
                self.unexpected("a value or a path")
            }
            None => self.unexpected("a value or a path"),
        }
    }

    fn closing(&mut self, symbol: &str, expected: &'static str) -> Result<(), Exposed> {
        if self.symbol(symbol) { Ok(()) } else { self.unexpected(expected) }
    }

    fn no_subquery(&mut self) -> Result<(), Exposed> {
        if self.is_keyword("SELECT") { Err(Exposed::Subquery(self.clause)) } else { Ok(()) }
    }

    fn object(&mut self) -> Result<(), Exposed> {
        self.members(|parser, _| parser.expression())
    }

    /// The members of an object that has been opened, each read by `member`.
    fn members(&mut self, mut member: impl FnMut(&mut Self, String) -> Result<(), Exposed>) -> Result<(), Exposed> {
        if self.symbol("}") {
            return Ok(());
        }
        self.list(|parser| {
            let name = match parser.take() {
                Some(Token::Text(name)) => name,
                Some(Token::Word(word)) if !is_keyword(&word) => word,
                Some(token) => {
                    parser.put_back(token);
                    return parser.unexpected("the name of a member");
                }
                None => return parser.unexpected("the name of a member"),
            };
            parser.closing(":", "`:`")?;
            member(parser, name)
        })?;
        self.closing("}", "`}`")
    }

    /// What begins with a word: a constant, a call or a path.
    fn named(&mut self, word: String) -> Result<(), Exposed> {
        let upper = word.to_ascii_uppercase();
        if self.symbol("(") {
            return match upper.as_str() {
                "EXISTS" | "ARRAY" | "ALL" | "FIRST" | "LAST" => Err(Exposed::Subquery(self.clause)),
                function if FUNCTIONS.contains(&function) => self.arguments(),
                _ => Err(Exposed::Function { clause: self.clause, name: word }),
            };
        }
        match upper.as_str() {
            "TRUE" | "FALSE" | "NULL" | "UNDEFINED" => Ok(()),
            "UDF" => Err(Exposed::Function { clause: self.clause, name: word }),
            _ if is_keyword(&word) => {
                self.put_back(Token::Word(word));
                self.unexpected("a value or a path")
            }
            _ => self.path(word),
        }
    }

    fn arguments(&mut self) -> Result<(), Exposed> {
        self.no_subquery()?;
        if self.symbol(")") {
            return Ok(());
        }
        self.list(Self::expression)?;
        self.closing(")", "`)`")
    }

    fn path(&mut self, root: String) -> Result<(), Exposed> {
        let mut steps = Vec::new();
        loop {
            if self.symbol(".") {
                match self.take() {
                    Some(Token::Word(name)) => steps.push(Step::Member(name)),
                    Some(token) => {
                        self.put_back(token);
                        return self.unexpected("the name of a member");
                    }
                    None => return self.unexpected("the name of a member"),
                }
            } else if self.symbol("[") {
                steps.push(match self.take() {
                    Some(Token::Text(name)) => Step::Member(name),
                    Some(Token::Number { whole: true }) => Step::Element,
                    _ => return Err(Exposed::Computed(self.clause)),
                });
                if !self.symbol("]") {
                    return Err(Exposed::Computed(self.clause));
                }
            } else {
                break;
            }
            if steps.len() > LONGEST {
                return Err(Exposed::Text("it has a path that is too long"));
            }
        }
        self.read.paths.push(Path { clause: self.clause, root, steps });
        Ok(())
    }
}

fn is_keyword(word: &str) -> bool {
    KEYWORDS.iter().any(|keyword| word.eq_ignore_ascii_case(keyword))
}
