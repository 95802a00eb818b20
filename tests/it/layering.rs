//! The house rules that a compiler does not know: who may import whom, and a few things that are not done here.
//!
//! The sources are read as tokens, so that text in strings and comments is never taken for code, and macro bodies are
//! read like everything else. A `use` and a path in the middle of an expression count the same.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// From the top to the bottom: a module imports its own layer and those below it.
const LAYERS: &[&[&str]] = &[
    &["dev"],
    &["config"],
    &["server"],
    &["mcp"],
    &["gateway"],
    &["telemetry"],
    &["asl"],
    &["answer"],
    ROOMS,
    &["context", "question", "mask"],
    &["access", "clock", "diagnostic", "json", "secret", "transport"],
];

/// The rooms, which know nothing of each other but the proofs.
const ROOMS: &[&str] =
    &["identity", "revocation", "policy", "limits", "overload", "idempotency", "exchange", "upstream", "audit"];

/// What one room may take from another.
const PROOFS: &[(&str, &[&str])] = &[
    ("identity", &["VerifiedSubject"]),
    (
        "policy",
        &["Permit", "Scope", "BindingLimits", "Hours", "Clause", "ClauseKind", "Decision", "Reasons", "Revision"],
    ),
    ("exchange", &["Warrant"]),
];

#[test]
fn every_module_keeps_to_its_layer_and_to_the_house_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = rust_files(&root.join("src"));
    files.extend(rust_files(&root.join("tests")));
    assert!(files.len() > 20, "found only {} source files under {}", files.len(), root.display());

    let sources: Vec<(&str, String)> = files
        .iter()
        .map(|file| (file.strip_prefix(root).unwrap().to_str().unwrap(), fs::read_to_string(file).unwrap()))
        .collect();
    let report = report(&sources);
    assert!(report.is_empty(), "\n{}\n", report.join("\n"));
}

#[test]
fn the_checker_finds_what_is_forbidden() {
    let cases = [
        (
            "src/access/claims.rs",
            "use crate::policy::Permit;",
            "1: access imports policy::Permit, which stands above it",
        ),
        ("src/audit/chain.rs", "\n\nuse crate::config::Raw;", "3: audit imports config::Raw, which stands above it"),
        ("src/clock.rs", "fn f() { g(crate::context::RequestId::new()) }", "1: clock imports context::RequestId"),
        ("src/clock.rs", "fn f() { log!(crate::context::RequestId) }", "1: clock imports context::RequestId"),
        ("src/answer/mod.rs", "//! x\nuse crate::telemetry::Metrics;", "2: answer imports telemetry::Metrics"),
        (
            "src/gateway.rs",
            "//! x\nuse crate::{\n  audit::Journal,\n  server::{self},\n};",
            "4: gateway imports server, which",
        ),
        (
            "src/upstream/forward.rs",
            "use crate::{policy::{Permit, Model}};",
            "1: upstream imports policy::Model, which is no",
        ),
        ("src/upstream/forward.rs", "use super::super::exchange::Broker;", "1: upstream imports exchange::Broker"),
        (
            "src/audit/chain.rs",
            "mod inner { use super::super::super::exchange::Broker; }",
            "1: audit imports exchange::Broker",
        ),
        ("src/audit/chain.rs", "use crate::policy::*;", "1: audit imports policy::*"),
        ("src/audit/chain.rs", "use crate::policy;", "1: audit imports policy, which is no proof"),
        ("src/audit/chain.rs", "#[cfg(test)]\nmod tests { use crate::server::Door; }", "2: audit imports server::Door"),
        (
            "src/audit/chain.rs",
            "#[cfg(not(test))]\nmod m { use crate::policy::Model; }",
            "2: audit imports policy::Model",
        ),
        ("src/audit/chain.rs", "#[cfg(test)]\nuse a::b;\nuse crate::policy::Model;", "3: audit imports policy::Model"),
        ("src/audit/chain.rs", "use crate::dev::cosmos;", "1: audit imports dev::cosmos, which stands above it"),
        ("src/attic.rs", "//! x\n", "1: attic has no place in the layering"),
        ("src/clock.rs", "//! x\nuse crate::attic::Box;", "2: clock imports attic::Box, which has no place"),
        ("src/audit/mod.rs", "use std::fmt;", "1: a module page begins with `//!`"),
        ("src/audit/chain.rs", "fn f() { std::env::var(\"A\") }", "1: only src/config reads the environment"),
        ("src/audit/chain.rs", "use std::{env, fmt};", "1: only src/config reads the environment"),
        ("src/audit/chain.rs", "fn f() { todo!() }", "1: `todo!` is for a branch of your own"),
        ("tests/it/walk.rs", "#[test]\n#[ignore = \"later\"]\nfn f() {}", "2: a test that is ignored is no test"),
        (
            "tests/it/walk.rs",
            "async fn f() { tokio::time::sleep(ONE).await }",
            "1: a test waits for what it wants to see",
        ),
        ("tests/it/walk.rs", "fn f( {", "1: this does not read as Rust"),
    ];
    for (path, source, expected) in cases {
        let found = report(&[(path, source.to_owned())]);
        let expected = format!("{path}:{expected}");
        assert!(
            matches!(&*found, [one] if one.starts_with(&expected)),
            "{source:?}\nwants {expected}\nfound {found:#?}"
        );
    }
}

#[test]
fn the_checker_passes_what_is_allowed() {
    let cases = [
        ("src/dev/mod.rs", "//! x\nuse crate::{config::Raw, gateway::Gateway, server};"),
        ("src/config/mod.rs", "//! x\nuse crate::telemetry::start_log; fn f() { std::env::vars() }"),
        ("src/audit/chain.rs", "use crate::{access::Action, identity::VerifiedSubject, policy::{Decision, Reasons}};"),
        ("src/audit/chain.rs", "fn f(d: crate::policy::Decision) { if let crate::policy::Decision::Allow(p) = d {} }"),
        ("src/audit/chain.rs", "use super::record::Record; use crate::audit::journal::Journal; use self::x::Y;"),
        ("src/audit/chain.rs", "#[cfg(test)]\nmod tests { use crate::policy::Model; }"),
        ("src/audit/chain.rs", "#[cfg(test)]\nmod tests { use crate::{config::dev::Seed, dev::cosmos}; }"),
        ("src/audit/chain.rs", "#[cfg(test)]\nmod tests { fn f() { std::env::var_os(\"UPDATE_GOLDEN\") } }"),
        ("src/audit/chain.rs", "// use crate::server::Door;\nconst A: &str = \"crate::server todo!()\";"),
        ("src/bin/stepgate/main.rs", "use crate::serve; use stepgate::dev;"),
        ("src/lib.rs", "//! x\npub mod server;\npub mod clock;"),
    ];
    for (path, source) in cases {
        let found = report(&[(path, source.to_owned())]);
        assert!(found.is_empty(), "{source:?}\nfound {found:#?}");
    }
}

#[test]
fn a_file_of_tests_is_known_by_where_it_is_declared() {
    let files = |declaration: &str| {
        [
            ("src/audit/mod.rs", format!("//! x\n{declaration}")),
            ("src/audit/trial/deep.rs", "use crate::policy::Model;".into()),
        ]
    };
    assert_eq!(report(&files("#[cfg(test)]\nmod trial;")), Vec::<String>::new());
    assert_eq!(report(&files("mod trial;")).len(), 1);
}

/// A breach of a rule, with the place where it stands.
struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Every breach in these files, as lines for people; paths are relative to the repository.
fn report(sources: &[(&str, String)]) -> Vec<String> {
    let read: Vec<_> = sources.iter().map(|(path, source)| (*path, source, Reader::of(path, source))).collect();
    let tests: Vec<&[String]> =
        read.iter().filter_map(|(_, _, reader)| reader.as_ref()).flat_map(Reader::test_modules).collect();
    read.iter()
        .flat_map(|(path, source, reader)| match reader {
            Some(reader) => {
                let module = module_of(path);
                check(path, source, reader, tests.iter().any(|test| module.starts_with(test)))
            }
            None => vec![Finding { path: (*path).to_owned(), line: 1, what: "this does not read as Rust".to_owned() }],
        })
        .map(|finding| finding.to_string())
        .collect()
}

/// Every breach in one source file, which may be one of tests alone.
fn check(path: &str, source: &str, reader: &Reader, test_file: bool) -> Vec<Finding> {
    let found = |line: usize, what: &str| Finding { path: path.to_owned(), line, what: what.to_owned() };
    let mut findings = Vec::new();
    if path.starts_with("src/") && path.ends_with("/mod.rs") && !source.starts_with("//!") {
        findings.push(found(1, "a module page begins with `//!`: what is decided here, what it refuses to know, why"));
    }
    if let Some(module) = own_module(path) {
        if layer(module).is_none() {
            findings.push(found(1, &format!("{module} has no place in the layering; give it one in LAYERS")));
        }
        let breaches =
            reader.imports.iter().filter_map(|import| Some((import.line, breach(module, import, test_file)?)));
        findings.extend(breaches.map(|(line, what)| found(line, &what)));
    }
    if path.starts_with("src/") && !path.starts_with("src/config/") && !path.starts_with("src/bin/") {
        let reads = reader
            .outside
            .iter()
            .filter(|import| import.path.starts_with(&["std".into(), "env".into()]) && !import.test && !test_file);
        findings.extend(reads.map(|import| found(import.line, "only src/config reads the environment")));
    }
    for &(line, word) in &reader.words {
        match word {
            Word::Todo => findings.push(found(line, "`todo!` is for a branch of your own")),
            Word::Ignore => findings.push(found(line, "a test that is ignored is no test")),
            Word::Sleep if path.starts_with("tests/it/") => {
                findings.push(found(line, "a test waits for what it wants to see, not for a time"));
            }
            Word::Sleep => {}
        }
    }
    findings
}

/// What is wrong with this import in this module, if anything.
fn breach(module: &str, import: &Import, test_file: bool) -> Option<String> {
    let target = import.path.first()?;
    let shown = import.path.join("::");
    if target == module {
        return None;
    }
    let (Some(own), Some(other)) = (layer(module), layer(target)) else {
        return layer(module).map(|_| format!("{module} imports {shown}, which has no place in the layering"));
    };
    if other < own && !((import.test || test_file) && is_of_stand_ins(&import.path)) {
        return Some(format!("{module} imports {shown}, which stands above it"));
    }
    let proof = || {
        let name = import.path.get(1)?;
        let (_, proofs) = PROOFS.iter().find(|(room, _)| room == target)?;
        proofs.contains(&name.as_str()).then_some(())
    };
    (!import.test && !test_file && ROOMS.contains(&module) && ROOMS.contains(&target.as_str()) && proof().is_none())
        .then(|| format!("{module} imports {shown}, which is no proof: rooms do not know each other"))
}

/// Whether a path is the stand-ins' or their configuration's: a room's own tests may start them, in the place of a mock.
fn is_of_stand_ins(path: &[String]) -> bool {
    path.iter().take(2).any(|part| part == "dev")
}

/// The number of a module's layer, counted from the top.
fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The top-level module of the library that a file belongs to; `None` for `lib.rs`, for the binary and for tests.
fn own_module(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let first = inside.split('/').next()?;
    let module = first.strip_suffix(".rs").unwrap_or(first);
    (module != "lib" && module != "bin").then_some(module)
}

/// The module that a file is: `src/audit/chain.rs` is `audit::chain`.
fn module_of(path: &str) -> Vec<String> {
    let stem = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    stem.split('/').filter(|part| *part != "lib").map(str::to_owned).collect()
}

/// Where in the module tree the tokens at hand stand.
#[derive(Clone)]
struct Place {
    module: Vec<String>,
    test: bool,
}

impl Place {
    /// A path from the crate's root when it begins with `crate`, `self` or `super`.
    fn resolve(&self, path: &[String]) -> Option<Vec<String>> {
        let (first, mut rest) = path.split_first()?;
        let mut base = match first.as_str() {
            "crate" => Vec::new(),
            "self" => self.module.clone(),
            "super" => self.module.split_last()?.1.to_vec(),
            _ => return None,
        };
        while let Some((next, after)) = rest.split_first()
            && next == "super"
        {
            base.pop();
            rest = after;
        }
        base.extend_from_slice(rest);
        Some(base)
    }
}

/// A path that some code uses, and whether only tests do.
struct Import {
    path: Vec<String>,
    line: usize,
    test: bool,
}

/// A word that some rule is about.
#[derive(Clone, Copy)]
enum Word {
    Todo,
    Ignore,
    Sleep,
}

/// What a file's tokens say.
#[derive(Default)]
struct Reader {
    /// Paths within the crate, from its root.
    imports: Vec<Import>,
    /// Paths into other crates.
    outside: Vec<Import>,
    words: Vec<(usize, Word)>,
    /// Modules in files of their own that are compiled for tests alone.
    test_modules: Vec<Vec<String>>,
}

impl Reader {
    /// Reads one file; `None` when it is not Rust.
    fn of(path: &str, source: &str) -> Option<Self> {
        let mut reader = Self::default();
        reader.read(source.parse().ok()?, &Place { module: module_of(path), test: false });
        Some(reader)
    }

    fn test_modules(&self) -> impl Iterator<Item = &[String]> {
        self.test_modules.iter().map(Vec::as_slice)
    }

    fn read(&mut self, tokens: TokenStream, place: &Place) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut rest = tokens.as_slice();
        // Whether an attribute has put the item at hand under `#[cfg(test)]`.
        let mut test_item = false;
        while let Some((token, after)) = rest.split_first() {
            let here = Place { test: place.test || test_item, ..place.clone() };
            rest = match (token, after) {
                (TokenTree::Punct(hash), [TokenTree::Group(group), ..]) if hash.as_char() == '#' => {
                    test_item |= is_cfg_test(group.stream());
                    if first_word(group.stream()).as_deref() == Some("ignore") {
                        self.words.push((line(token), Word::Ignore));
                    }
                    after
                }
                (TokenTree::Ident(word), [TokenTree::Ident(name), TokenTree::Group(body), after @ ..])
                    if word == "mod" =>
                {
                    let mut inner = here;
                    inner.module.push(name.to_string());
                    self.read(body.stream(), &inner);
                    test_item = false;
                    after
                }
                (TokenTree::Ident(word), [TokenTree::Ident(name), after @ ..]) if word == "mod" => {
                    if here.test {
                        self.test_modules.push([here.module, vec![name.to_string()]].concat());
                    }
                    after
                }
                (TokenTree::Ident(word), _) if word == "use" => self.read_use(after, &[], &here),
                (TokenTree::Ident(_), _) => self.read_path(rest, &here),
                (TokenTree::Group(group), _) => {
                    self.read(group.stream(), &here);
                    test_item &= group.delimiter() != Delimiter::Brace;
                    after
                }
                (TokenTree::Punct(end), _) if end.as_char() == ';' => {
                    test_item = false;
                    after
                }
                _ => after,
            };
        }
    }

    /// Reads `a::b::c`, which begins at the first token; gives what follows it.
    fn read_path<'a>(&mut self, tokens: &'a [TokenTree], place: &Place) -> &'a [TokenTree] {
        let mut path = Vec::new();
        let mut at = 0;
        let mut rest = tokens;
        while let Some((TokenTree::Ident(segment), after)) = rest.split_first() {
            at = segment.span().start().line;
            path.push(segment.to_string());
            rest = after;
            match separator(after) {
                Some(next) => rest = next,
                None => break,
            }
        }
        let word = match (path.last().map(String::as_str), rest.first()) {
            (Some("todo"), Some(TokenTree::Punct(bang))) if bang.as_char() == '!' => Some(Word::Todo),
            (Some("sleep"), Some(TokenTree::Group(call))) if call.delimiter() == Delimiter::Parenthesis => {
                Some(Word::Sleep)
            }
            _ => None,
        };
        self.words.extend(word.map(|word| (at, word)));
        if path.len() > 1 {
            self.note(path, at, place);
        }
        rest
    }

    /// Reads one branch of a `use` tree and its neighbours up to the end of the tree; gives what follows.
    fn read_use<'a>(&mut self, tokens: &'a [TokenTree], prefix: &[String], place: &Place) -> &'a [TokenTree] {
        let mut path = prefix.to_vec();
        let mut at = None;
        let mut rest = tokens;
        while let Some((token, after)) = rest.split_first() {
            rest = after;
            match token {
                TokenTree::Ident(word) if word == "as" => rest = after.get(1..).unwrap_or_default(),
                TokenTree::Ident(word) => {
                    at.get_or_insert(line(token));
                    // `a::{self}` names `a`.
                    if word != "self" || path.is_empty() {
                        path.push(word.to_string());
                    }
                }
                TokenTree::Punct(star) if star.as_char() == '*' => {
                    at.get_or_insert(line(token));
                    path.push("*".to_owned());
                }
                TokenTree::Group(branches) => {
                    let inner: Vec<TokenTree> = branches.stream().into_iter().collect();
                    self.read_use(&inner, &path, place);
                    at = None;
                }
                TokenTree::Punct(end) if matches!(end.as_char(), ',' | ';') => {
                    if let Some(line) = at.take() {
                        self.note(path, line, place);
                    }
                    path = prefix.to_vec();
                    if end.as_char() == ';' {
                        // The loop of `read` has still to see where the item ends.
                        return tokens.get(tokens.len() - after.len() - 1..).unwrap_or_default();
                    }
                }
                _ => {}
            }
        }
        if let Some(line) = at {
            self.note(path, line, place);
        }
        rest
    }

    fn note(&mut self, path: Vec<String>, line: usize, place: &Place) {
        match place.resolve(&path) {
            Some(path) => self.imports.push(Import { path, line, test: place.test }),
            None => self.outside.push(Import { path, line, test: place.test }),
        }
    }
}

/// What follows `::`, when that is what the tokens begin with.
fn separator(tokens: &[TokenTree]) -> Option<&[TokenTree]> {
    match tokens {
        [TokenTree::Punct(a), TokenTree::Punct(b), rest @ ..] if a.as_char() == ':' && b.as_char() == ':' => Some(rest),
        _ => None,
    }
}

/// Whether an attribute is `cfg(test)` or demands at least that: `cfg(all(test, ...))`.
fn is_cfg_test(attribute: TokenStream) -> bool {
    let tokens: Vec<TokenTree> = attribute.into_iter().collect();
    match &*tokens {
        [TokenTree::Ident(name), TokenTree::Group(condition)] if name == "cfg" => demands_test(condition.stream()),
        _ => false,
    }
}

fn demands_test(condition: TokenStream) -> bool {
    let tokens: Vec<TokenTree> = condition.into_iter().collect();
    match &*tokens {
        [TokenTree::Ident(word)] => word == "test",
        [TokenTree::Ident(all), TokenTree::Group(parts)] if all == "all" => {
            parts.stream().into_iter().any(|part| matches!(part, TokenTree::Ident(word) if word == "test"))
        }
        _ => false,
    }
}

fn first_word(tokens: TokenStream) -> Option<String> {
    match tokens.into_iter().next()? {
        TokenTree::Ident(word) => Some(word.to_string()),
        _ => None,
    }
}

fn line(token: &TokenTree) -> usize {
    token.span().start().line
}

/// Every Rust file below a folder, in order.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
