//! From a directory to a policy set, or to everything that is wrong with it.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Config,
    compile::{self, File},
    decision::Revision,
    links::Links,
    model::PolicySet,
    revision, warn,
};
use crate::diagnostic::{self, Diagnostic, Severity, Source};

/// How often a directory that is swapped while it is read is read again.
const MOST_READS: usize = 100;

/// Builds the policy of a directory. An error is every finding at once, warnings among them.
pub fn load(config: &Config) -> Result<PolicySet, Vec<Diagnostic>> {
    let directory = Directory::read(&config.directory)?;
    build(&directory, directory.revision(), config)
}

/// Builds the policy of files that were read.
pub(super) fn build(directory: &Directory, revision: Revision, config: &Config) -> Result<PolicySet, Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    let mut files = Vec::new();
    for text in directory.policies() {
        match diagnostic::parse(&text.source) {
            Ok((document, places)) => {
                files.push(File { source: text.source.clone(), name: text.name.clone(), document, places });
            }
            Err(error) => diagnostics.push(with_mend(error)),
        }
    }
    let compiled = compile::compile(&files, config.issuers.as_deref(), &mut diagnostics);
    let warnings = warn::warnings(&files, &compiled);
    if diagnostics.is_empty() {
        Ok(PolicySet::new(revision, compiled.grants, &compiled.bindings, compiled.denies, warnings))
    } else {
        diagnostics.extend(warnings);
        diagnostics.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        Err(diagnostics)
    }
}

/// A finding of the parser knows what is wrong, not what would be right.
fn with_mend(mut finding: Diagnostic) -> Diagnostic {
    finding.mend.get_or_insert_with(|| "write it as `stepgate policy schema` describes".to_owned());
    finding
}

/// The files of a policy directory, as they were at one moment.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Where that led when it was read.
    root: PathBuf,
    /// By name.
    files: Vec<Text>,
    /// Whether every file lies below the directory, symbolic links followed.
    self_contained: bool,
}

/// A file below the policy directory.
#[derive(Debug)]
pub(super) struct Text {
    /// The path below the directory, with `/`.
    pub(super) name: String,
    pub(super) source: Source,
}

impl Directory {
    /// Files that do not come from a directory, such as those of a git revision.
    pub(super) fn of(path: &Path, files: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut files: Vec<_> = files
            .into_iter()
            .map(|(name, text)| Text { source: Source { file: path.join(&name), text: text.into() }, name })
            .collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Self { path: path.to_owned(), root: path.to_owned(), files, self_contained: true }
    }

    /// Reads `*.yaml` at any depth. Symbolic links are followed and nothing is read twice; names that begin with a dot are
    /// skipped, which leaves out `.git` and the `..data` of a Kubernetes ConfigMap, whose files are linked beside it.
    ///
    /// A directory whose links moved while it was read is read again: what was read may be half old and half new.
    pub(super) fn read(path: &Path) -> Result<Self, Vec<Diagnostic>> {
        Self::read_still(path)?.not_empty()
    }

    fn read_still(path: &Path) -> Result<Self, Vec<Diagnostic>> {
        for _ in 0..MOST_READS {
            let mut walk = Walk::default();
            let directory = Self::walk(path, &mut walk);
            if walk.links.hold() {
                return directory;
            }
        }
        let mend = "reload when it is at rest; until then the policy that runs stays";
        Err(vec![about_file(path, "the directory is replaced again and again while it is read", mend)])
    }

    fn not_empty(self) -> Result<Self, Vec<Diagnostic>> {
        if self.policies().next().is_some() {
            return Ok(self);
        }
        let mend = "point at the directory with the policy files; an empty policy would deny everything";
        Err(vec![about_file(&self.path, "there is no policy file (*.yaml) here", mend)])
    }

    /// Reads a directory that may hold tests alone.
    pub(super) fn read_tests(path: &Path) -> Result<Self, Vec<Diagnostic>> {
        Self::read_still(path)
    }

    /// Reads from where the path leads now: if it leads elsewhere a moment later, what is read is still of one piece.
    fn walk(path: &Path, walk: &mut Walk) -> Result<Self, Vec<Diagnostic>> {
        path.clone_into(&mut walk.shown);
        walk.links.follow(path);
        walk.root = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        walk.directory(&walk.root.clone(), "");
        if !walk.diagnostics.is_empty() {
            return Err(std::mem::take(&mut walk.diagnostics));
        }
        walk.files.sort_by(|a, b| a.name.cmp(&b.name));
        let self_contained = walk.seen.iter().all(|seen| seen.starts_with(&walk.root));
        let (root, files) = (walk.root.clone(), std::mem::take(&mut walk.files));
        Ok(Self { path: path.to_owned(), root, files, self_contained })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn policies(&self) -> impl Iterator<Item = &Text> {
        self.files.iter().filter(|text| !is_test(&text.name))
    }

    pub(super) fn tests(&self) -> impl Iterator<Item = &Text> {
        self.files.iter().filter(|text| is_test(&text.name))
    }

    /// SHA-256 of the policy files' names and contents, in hex.
    pub(super) fn digest(&self) -> String {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for text in self.policies() {
            for part in [text.name.as_bytes(), text.source.text.as_bytes()] {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part);
            }
        }
        hex::encode(context.finish())
    }

    pub(super) fn revision(&self) -> Revision {
        revision::of_directory(&self.root, self.self_contained, &self.digest())
    }
}

fn is_test(name: &str) -> bool {
    name.ends_with(".test.yaml")
}

fn about_file(file: &Path, message: impl Into<String>, mend: &str) -> Diagnostic {
    let source = Source { file: file.to_owned(), text: Arc::from("") };
    source.at(Severity::Error, diagnostic::Place::default(), message, Some(mend.to_owned()))
}

#[derive(Default)]
struct Walk {
    /// The directory as it was named, and where that leads.
    shown: PathBuf,
    root: PathBuf,
    files: Vec<Text>,
    /// Canonical paths.
    seen: HashSet<PathBuf>,
    links: Links,
    diagnostics: Vec<Diagnostic>,
}

impl Walk {
    fn directory(&mut self, path: &Path, prefix: &str) {
        match self.list(path) {
            Ok(names) => names.iter().for_each(|name| self.entry(&path.join(name), &format!("{prefix}{name}"))),
            Err(error) => self.unreadable(path, &error),
        }
    }

    /// The names in a directory, sorted; none when the directory was listed before.
    fn list(&mut self, path: &Path) -> io::Result<Vec<String>> {
        if !self.seen.insert(fs::canonicalize(path)?) {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            match entry?.file_name().into_string() {
                Ok(name) if name.starts_with('.') => {}
                Ok(name) => names.push(name),
                Err(name) => {
                    let file = self.shown(&path.join(name));
                    self.diagnostics.push(about_file(&file, "the file's name is not UTF-8", "rename it"));
                }
            }
        }
        names.sort();
        Ok(names)
    }

    fn entry(&mut self, path: &Path, name: &str) {
        if path.is_symlink() {
            self.links.follow(path);
        }
        match fs::metadata(path) {
            Err(error) => self.unreadable(path, &error),
            Ok(metadata) if metadata.is_dir() => self.directory(path, &format!("{name}/")),
            Ok(_) if name.ends_with(".yaml") => self.file(path, name),
            Ok(_) if name.ends_with(".yml") => {
                self.diagnostics.push(about_file(
                    &self.shown(path),
                    "only *.yaml is read, so this would not be obeyed",
                    "rename it to .yaml",
                ));
            }
            Ok(_) => {}
        }
    }

    fn file(&mut self, path: &Path, name: &str) {
        let text = fs::canonicalize(path).and_then(|canonical| {
            if self.seen.insert(canonical) { fs::read_to_string(path).map(Some) } else { Ok(None) }
        });
        match text {
            Ok(Some(text)) => {
                let source = Source { file: self.shown(path), text: text.into() };
                self.files.push(Text { name: name.to_owned(), source });
            }
            Ok(None) => {}
            Err(error) => self.unreadable(path, &error),
        }
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        let message = format!("cannot be read: {error}");
        self.diagnostics.push(about_file(&self.shown(path), message, "check the path and its permissions"));
    }

    /// A path below the root, as a person would name it.
    fn shown(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.root) {
            Ok(below) if below.as_os_str().is_empty() => self.shown.clone(),
            Ok(below) => self.shown.join(below),
            Err(_) => path.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const POLICY: &str = "roles: { r: { grants: [{ container: a/b, operations: [query] }] } }\n\
                          bindings: [{ role: r, workloads: [{ issuer: i }] }]\n";
    const EMPTY: &str = "deny: []\n";

    fn load_from(directory: &Path) -> Result<PolicySet, Vec<Diagnostic>> {
        load(&Config { directory: directory.to_owned(), issuers: None })
    }

    #[test]
    fn a_configmap_is_read_once() {
        let root = tempfile::tempdir().unwrap();
        let generation = root.path().join("..2026_11_22");
        fs::create_dir(&generation).unwrap();
        fs::write(generation.join("p.yaml"), POLICY).unwrap();
        symlink("..2026_11_22", root.path().join("..data")).unwrap();
        symlink("..data/p.yaml", root.path().join("p.yaml")).unwrap();
        let set = load_from(root.path()).unwrap();
        let places: Vec<_> = set.clauses().map(|clause| clause.place.to_string()).collect();
        assert_eq!(places, ["p.yaml:1"]);
    }

    #[test]
    fn links_are_followed_and_loops_end() {
        let root = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("p.yaml"), POLICY).unwrap();
        symlink(elsewhere.path(), root.path().join("team")).unwrap();
        symlink(elsewhere.path().join("p.yaml"), root.path().join("again.yaml")).unwrap();
        symlink(root.path(), root.path().join("loop")).unwrap();
        let directory = Directory::read(root.path()).unwrap();
        let names: Vec<_> = directory.policies().map(|text| text.name.as_str()).collect();
        assert_eq!(names, ["again.yaml"]);
        assert!(!directory.self_contained);
    }

    #[test]
    fn tests_are_told_from_policies_and_other_files_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("team")).unwrap();
        for (name, text) in
            [("team/p.yaml", POLICY), ("p.test.yaml", "cases: []"), ("README.md", "#"), (".hidden.yaml", "x")]
        {
            fs::write(root.path().join(name), text).unwrap();
        }
        let directory = Directory::read(root.path()).unwrap();
        assert_eq!(directory.policies().map(|text| text.name.as_str()).collect::<Vec<_>>(), ["team/p.yaml"]);
        assert_eq!(directory.tests().map(|text| text.name.as_str()).collect::<Vec<_>>(), ["p.test.yaml"]);
        let digest = directory.digest();
        fs::write(root.path().join("p.test.yaml"), "cases: [ ]").unwrap();
        assert_eq!(Directory::read(root.path()).unwrap().digest(), digest, "a test changes no policy");
        fs::write(root.path().join("q.yaml"), EMPTY).unwrap();
        assert_ne!(Directory::read(root.path()).unwrap().digest(), digest);
    }

    #[test]
    fn what_would_not_be_obeyed_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        assert!(load_from(root.path()).unwrap_err()[0].message.contains("no policy file"));
        assert!(load_from(&root.path().join("absent")).unwrap_err()[0].message.contains("cannot be read"));
        fs::write(root.path().join("p.yaml"), POLICY).unwrap();
        fs::write(root.path().join("stop.yml"), EMPTY).unwrap();
        symlink("nowhere", root.path().join("gone.yaml")).unwrap();
        let findings = load_from(root.path()).unwrap_err();
        assert_eq!(findings.len(), 2, "{findings:#?}");
        assert!(findings.iter().all(|finding| finding.mend.is_some()));
    }

    #[test]
    fn the_findings_of_all_files_come_at_once() {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in
            [("a.yaml", "roels: {}"), ("b.yaml", "roles: {"), ("c.yaml", "bindings: [{ role: x, workloads: [] }]")]
        {
            fs::write(root.path().join(name), text).unwrap();
        }
        let findings = load_from(root.path()).unwrap_err();
        let names: Vec<_> = findings.iter().map(|f| f.file.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.yaml", "b.yaml", "c.yaml", "c.yaml"]);
    }
}
