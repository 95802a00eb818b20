//! A definition as it was written, and as the graph that its states make.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::text::{Constants, Language, Text};
use crate::diagnostic::{self, Diagnostic, Place, Places, Source};

/// A state machine's definition, in JSON or YAML, with the places of everything in it.
#[derive(Clone, Debug)]
pub struct Definition {
    source: Source,
    value: Value,
    places: Places,
}

impl Definition {
    /// Reads a definition. Only syntax is checked here: what it means is what the rules are about.
    pub fn read(source: Source) -> Result<Self, Diagnostic> {
        let (value, places) = diagnostic::parse(&source)?;
        Ok(Self { source, value, places })
    }

    /// The file it was read from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    pub(super) fn value(&self) -> &Value {
        &self.value
    }

    pub(super) fn place(&self, path: &str) -> Place {
        self.places.of(path)
    }
}

/// The path of a member, as [`Places`] takes it.
pub(super) fn member(path: &str, name: &str) -> String {
    let name = name.replace('~', "~0").replace('/', "~1");
    if path.is_empty() { name } else { format!("{path}/{name}") }
}

/// A position in [`Graph::states`].
pub(super) type Index = usize;

/// Every state of a definition, however deep it stands, and where each may lead.
#[derive(Debug, Default)]
pub(super) struct Graph<'a> {
    pub(super) states: Vec<State<'a>>,
    pub(super) machines: Vec<Machine<'a>>,
    pub(super) constants: Constants,
}

/// A `StartAt` with its `States`: the whole definition, a branch, or what runs for each item.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    pub(super) path: String,
    pub(super) written: &'a Map<String, Value>,
    pub(super) states: HashMap<&'a str, Index>,
    /// The Parallel or Map that it is a part of.
    owner: Option<Index>,
}

/// A state.
#[derive(Debug)]
pub(super) struct State<'a> {
    pub(super) name: &'a str,
    pub(super) path: String,
    pub(super) written: &'a Map<String, Value>,
    pub(super) language: Language,
    /// What it stands in, outermost first.
    pub(super) within: Vec<Enclosure>,
    /// The machine it is a state of.
    machine: usize,
    /// Where it may lead when it succeeds, the states inside of it included.
    pub(super) next: Vec<Index>,
    /// Where it may lead when it fails, by the names of the errors.
    pub(super) caught: Vec<(Vec<&'a str>, Index)>,
}

/// A Parallel or Map around a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Enclosure {
    pub(super) state: Index,
    pub(super) part: Part,
}

/// In which part of a Parallel or Map a state stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Branch(usize),
    Iteration { distributed: bool },
}

impl<'a> State<'a> {
    pub(super) fn kind(&self) -> &'a str {
        self.text("Type").unwrap_or_default()
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.written.get(name)?.as_str()
    }

    pub(super) fn list(&self, name: &str) -> &'a [Value] {
        list(self.written, name)
    }

    pub(super) fn at(&self, name: &str) -> String {
        member(&self.path, name)
    }
}

pub(super) fn list<'a>(members: &'a Map<String, Value>, name: &str) -> &'a [Value] {
    members.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The texts of a list, such as `ErrorEquals`.
pub(super) fn texts<'a>(members: &'a Map<String, Value>, name: &str) -> Vec<&'a str> {
    list(members, name).iter().filter_map(Value::as_str).collect()
}

impl<'a> Graph<'a> {
    /// The graph of a definition. What does not hold together is left out of it.
    pub(super) fn of(definition: &'a Definition) -> Self {
        let mut graph = Self::default();
        if let Some(root) = definition.value().as_object() {
            graph.read(root, String::new(), Language::JsonPath, &[], None);
        }
        graph.connect();
        graph.constants = graph.constants();
        graph
    }

    pub(super) fn state(&self, index: Index) -> Option<&State<'a>> {
        self.states.get(index)
    }

    /// A member's text: `name` as it is, or `name.$` in JSONPath; with the path where it stands.
    pub(super) fn text(&self, within: &Map<String, Value>, path: &str, name: &str, language: Language) -> Found {
        let dynamic = format!("{name}.$");
        let (name, value, expression) = match (within.get(name), within.get(&dynamic)) {
            (Some(value), _) => (name, value, false),
            (None, Some(value)) => (dynamic.as_str(), value, true),
            (None, None) => return Found::Absent,
        };
        let path = member(path, name);
        match Text::of(value, expression, language, &self.constants) {
            Some(text) => Found::Text(path, text),
            None => Found::Other,
        }
    }

    fn read(
        &mut self,
        written: &'a Map<String, Value>,
        path: String,
        language: Language,
        within: &[Enclosure],
        owner: Option<Index>,
    ) {
        let language = language_of(written, language);
        let machine = self.machines.len();
        self.machines.push(Machine { path: path.clone(), written, states: HashMap::new(), owner });
        let states_path = member(&path, "States");
        let states = written.get("States").and_then(Value::as_object).into_iter().flatten();
        for (name, state) in states {
            let Some(state) = state.as_object() else { continue };
            let index = self.states.len();
            let path = member(&states_path, name);
            let language = language_of(state, language);
            self.states.push(State {
                name,
                path: path.clone(),
                written: state,
                language,
                within: within.to_vec(),
                machine,
                next: Vec::new(),
                caught: Vec::new(),
            });
            if let Some(machine) = self.machines.get_mut(machine) {
                machine.states.insert(name, index);
            }
            self.read_inside(state, &path, language, within, index);
        }
    }

    fn read_inside(
        &mut self,
        state: &'a Map<String, Value>,
        path: &str,
        language: Language,
        within: &[Enclosure],
        index: Index,
    ) {
        let inside = |part| [within, &[Enclosure { state: index, part }]].concat();
        let branches = member(path, "Branches");
        for (number, branch) in list(state, "Branches").iter().enumerate() {
            if let Some(branch) = branch.as_object() {
                let path = member(&branches, &number.to_string());
                self.read(branch, path, language, &inside(Part::Branch(number)), Some(index));
            }
        }
        for name in ["ItemProcessor", "Iterator"] {
            if let Some(processor) = state.get(name).and_then(Value::as_object) {
                let mode = processor.get("ProcessorConfig").and_then(|config| config.get("Mode"));
                let distributed = mode.and_then(Value::as_str) == Some("DISTRIBUTED");
                let within = inside(Part::Iteration { distributed });
                self.read(processor, member(path, name), language, &within, Some(index));
            }
        }
    }

    /// Resolves the names of states to what they lead to.
    fn connect(&mut self) {
        let connected: Vec<_> = self.states.iter().map(|state| (self.ways_on(state), self.ways_out(state))).collect();
        for (state, (next, caught)) in self.states.iter_mut().zip(connected) {
            (state.next, state.caught) = (next, caught);
        }
    }

    fn ways_on(&self, state: &State<'a>) -> Vec<Index> {
        let own = self.states.iter().position(|other| std::ptr::eq(other, state));
        let inside = self.machines.iter().filter(|machine| own.is_some() && machine.owner == own);
        let starts = inside.filter_map(|machine| machine.states.get(machine.start()?).copied());
        let mut next: Vec<Index> = starts.collect();
        next.extend(self.after(state, 0));
        next
    }

    /// Where a state leads once it is done; at the end of a branch, where the Parallel leads.
    fn after(&self, state: &State<'a>, depth: usize) -> Vec<Index> {
        let Some(machine) = self.machines.get(state.machine) else { return Vec::new() };
        let ends = state.written.get("End") == Some(&Value::Bool(true)) || state.kind() == "Succeed";
        match machine.owner.and_then(|owner| self.state(owner)) {
            Some(owner) if ends && depth < self.machines.len() => self.after(owner, depth + 1),
            _ => state.targets().filter_map(|(_, name)| machine.states.get(name).copied()).collect(),
        }
    }

    fn ways_out(&self, state: &State<'a>) -> Vec<(Vec<&'a str>, Index)> {
        let Some(machine) = self.machines.get(state.machine) else { return Vec::new() };
        let catchers = state.list("Catch").iter().filter_map(Value::as_object);
        let ways = catchers.filter_map(|catcher| {
            let target = catcher.get("Next").and_then(Value::as_str)?;
            Some((texts(catcher, "ErrorEquals"), *machine.states.get(target)?))
        });
        ways.collect()
    }

    /// Every state that may run after one of these, however far on; failures lead on too, unless `passes` says otherwise.
    pub(super) fn reachable(&self, from: &[Index], passes: impl Fn(&[&str]) -> bool) -> Vec<Index> {
        let mut seen = vec![false; self.states.len()];
        let mut waiting = from.to_vec();
        while let Some(index) = waiting.pop() {
            let Some(mark) = seen.get_mut(index).filter(|mark| !**mark) else { continue };
            *mark = true;
            let Some(state) = self.state(index) else { continue };
            waiting.extend(&state.next);
            waiting.extend(state.caught.iter().filter(|(errors, _)| passes(errors)).map(|(_, to)| *to));
        }
        seen.iter().enumerate().filter(|(_, seen)| **seen).map(|(index, _)| index).collect()
    }

    /// The variables to which one literal text is assigned, and never anything else.
    fn constants(&self) -> Constants {
        let mut assigned: HashMap<&str, Option<&str>> = HashMap::new();
        let states = self.states.iter().map(|state| state.written);
        let catchers = self.states.iter().flat_map(|state| state.list("Catch")).filter_map(Value::as_object);
        let choices = self.states.iter().flat_map(|state| state.list("Choices")).filter_map(Value::as_object);
        let variables = states.chain(catchers).chain(choices).filter_map(|holder| holder.get("Assign")?.as_object());
        for (name, value) in variables.flatten() {
            let literal = value.as_str().filter(|text| !name.ends_with(".$") && !text.contains("{%"));
            assigned
                .entry(name.trim_end_matches(".$"))
                .and_modify(|so_far| *so_far = so_far.filter(|so_far| literal == Some(so_far)))
                .or_insert(literal);
        }
        let literal = assigned.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.to_owned())));
        literal.collect()
    }
}

/// What stands under a name.
pub(super) enum Found {
    /// Nothing.
    Absent,
    /// A text, as far as it can be known.
    Text(String, Text),
    /// A list or an object.
    Other,
}

impl Found {
    pub(super) fn text(self) -> Option<(String, Text)> {
        match self {
            Self::Text(path, text) => Some((path, text)),
            Self::Absent | Self::Other => None,
        }
    }
}

impl<'a> Machine<'a> {
    pub(super) fn start(&self) -> Option<&'a str> {
        self.written.get("StartAt")?.as_str()
    }
}

impl<'a> State<'a> {
    /// The names of the states it may lead to without failing, and where they stand.
    pub(super) fn targets(&self) -> impl Iterator<Item = (String, &'a str)> {
        let named = |name: &'static str| Some((self.at(name), self.text(name)?));
        let choices = self.list("Choices").iter().enumerate().filter_map(|(number, choice)| {
            let path = member(&member(&self.at("Choices"), &number.to_string()), "Next");
            Some((path, choice.get("Next")?.as_str()?))
        });
        [named("Next"), named("Default")].into_iter().flatten().chain(choices)
    }
}

fn language_of(written: &Map<String, Value>, outer: Language) -> Language {
    match written.get("QueryLanguage").and_then(Value::as_str) {
        Some("JSONata") => Language::Jsonata,
        Some("JSONPath") => Language::JsonPath,
        _ => outer,
    }
}
