//! A log that is changed in ten thousand random ways, all of which are found: most by the log itself, and a log that is set
//! back as a whole by a checkpoint that was kept elsewhere.
//!
//! `MUTATIONS` says how many; a few hundred when it is not set.

use std::{collections::BTreeMap, fs, path::Path};

use super::{chain, ocsf, samples::entry, *};
use crate::clock::{Clock, ManualClock, Timestamp};

/// The files of a log, by name.
type Files = BTreeMap<String, Vec<u8>>;

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // SplitMix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len())]
    }
}

/// What a mutation is found by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FoundBy {
    /// The log's own hashes and signatures.
    Log,
    /// A checkpoint that was kept elsewhere, and nothing else.
    Anchor,
}

/// A log of several segments that was closed and opened again several times, and how it stood each time.
struct Subject {
    states: Vec<Files>,
    anchors: tempfile::TempDir,
    directory: tempfile::TempDir,
}

impl Subject {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut states = Vec::new();
        for run in 0..5 {
            let hand = ManualClock::new(Timestamp::from_millis(1_795_375_762_123));
            let config =
                Config { segment_bytes: 9 * 1024, checkpoint_records: 5, ..Config::in_directory(directory.path()) };
            let journal = Journal::open(config, Anchors::default(), Clock::Manual(hand)).unwrap();
            for n in 0..7 {
                journal.append(entry(Phase::Outcome, &format!("request-{run}-{n}"))).await.unwrap();
            }
            journal.close().await.unwrap();
            states.push(read(directory.path()));
        }
        let anchors = tempfile::tempdir().unwrap();
        for (name, content) in states.last().unwrap().iter().filter(|(name, _)| name.ends_with(".checkpoints")) {
            fs::write(anchors.path().join(name), content).unwrap();
        }
        Self { states, anchors, directory: tempfile::tempdir().unwrap() }
    }

    fn log(&self) -> &Files {
        self.states.last().unwrap()
    }

    /// Whether the log as it is in `files` verifies, by itself and against the anchors.
    fn verify(&self, files: &Files) -> [bool; 2] {
        let directory = self.directory.path();
        for file in fs::read_dir(directory).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        for (name, content) in files {
            fs::write(directory.join(name), content).unwrap();
        }
        let anchored = Evidence { anchors: vec![self.anchors.path().to_owned()], ..Evidence::default() };
        [Evidence::default(), anchored].map(|evidence| {
            let report = verify(directory, &evidence, Range::ALL).unwrap();
            assert!(!evidence.anchors.is_empty() || !report.promise.contains("anchored"), "{}", report.promise);
            report.ok
        })
    }
}

fn read(directory: &Path) -> Files {
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap());
    let files = files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap()));
    files.filter(|(name, _)| name != "lock" && name != "signing.key").collect()
}

/// The segments that have records.
fn segments(files: &Files) -> Vec<String> {
    files
        .iter()
        .filter(|(name, lines)| name.ends_with(".jsonl") && !lines.is_empty())
        .map(|(name, _)| name.clone())
        .collect()
}

fn lines(content: &[u8]) -> Vec<Vec<u8>> {
    content.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// Changes a log in one way, and says which and by what it is found. Does nothing, now and then, where the dice say so.
fn mutate(subject: &Subject, dice: &mut Dice) -> (Files, String, FoundBy) {
    let mut files = subject.log().clone();
    let (what, by) = match dice.roll(12) {
        0..=2 => (flip_a_bit(&mut files, dice), FoundBy::Log),
        3 => (drop_a_line(&mut files, dice), FoundBy::Log),
        4 => (repeat_a_line(&mut files, dice), FoundBy::Log),
        5 => (swap_lines(&mut files, dice), FoundBy::Log),
        6 => (cut_the_tail(&mut files, dice), FoundBy::Log),
        7 => (drop_a_segment(&mut files, dice), FoundBy::Log),
        8 => (drop_the_head(&mut files, dice), FoundBy::Log),
        9 => (forge_the_chain(&mut files, dice), FoundBy::Log),
        10 => (drop_whole_tail(&mut files, dice), FoundBy::Anchor),
        _ => {
            let state = dice.roll(subject.states.len() - 1);
            files = subject.states[state].clone();
            (format!("set back as a whole to the end of run {state}"), FoundBy::Anchor)
        }
    };
    (files, what, by)
}

fn flip_a_bit(files: &mut Files, dice: &mut Dice) -> String {
    let name = dice.pick(&files.keys().filter(|name| !files[*name].is_empty()).cloned().collect::<Vec<_>>()).clone();
    let content = files.get_mut(&name).unwrap();
    let (at, bit) = (dice.roll(content.len()), dice.roll(8));
    content[at] ^= 1 << bit;
    format!("bit {bit} of byte {at} of {name} flipped")
}

fn drop_a_line(files: &mut Files, dice: &mut Dice) -> String {
    let name = dice.pick(&segments(files)).clone();
    let mut all = lines(&files[&name]);
    let at = dice.roll(all.len());
    all.remove(at);
    files.insert(name.clone(), all.concat());
    format!("line {at} of {name} dropped")
}

fn repeat_a_line(files: &mut Files, dice: &mut Dice) -> String {
    let segments = segments(files);
    let (from, to) = (dice.pick(&segments).clone(), dice.pick(&segments).clone());
    let line = dice.pick(&lines(&files[&from])).clone();
    let mut all = lines(&files[&to]);
    let at = dice.roll(all.len() + 1);
    all.insert(at, line);
    files.insert(to.clone(), all.concat());
    format!("a line of {from} put into {to} at {at}")
}

fn swap_lines(files: &mut Files, dice: &mut Dice) -> String {
    let name = dice
        .pick(&segments(files).into_iter().filter(|name| lines(&files[name]).len() > 1).collect::<Vec<_>>())
        .clone();
    let mut all = lines(&files[&name]);
    let at = dice.roll(all.len());
    let other = (at + 1 + dice.roll(all.len() - 1)) % all.len();
    all.swap(at, other);
    files.insert(name.clone(), all.concat());
    format!("lines {at} and {other} of {name} swapped")
}

fn cut_the_tail(files: &mut Files, dice: &mut Dice) -> String {
    let name = segments(files).pop().unwrap();
    let content = files.get_mut(&name).unwrap();
    let left = dice.roll(content.len());
    content.truncate(left);
    format!("{name} cut to {left} bytes")
}

/// One file of any segment, or both of one in the middle.
fn drop_a_segment(files: &mut Files, dice: &mut Dice) -> String {
    let all = segments(files);
    let at = dice.roll(all.len() - 1);
    let (lines, notes) = (all[at].clone(), all[at].replace(".jsonl", ".checkpoints"));
    let dropped = match dice.roll(3) {
        0 => vec![lines],
        1 => vec![notes],
        _ => vec![lines, notes],
    };
    dropped.iter().for_each(|name| drop(files.remove(name)));
    format!("{dropped:?} dropped")
}

/// The first segments go, and the rest is numbered as if it were whole.
fn drop_the_head(files: &mut Files, dice: &mut Dice) -> String {
    let all = segments(files);
    let dropped = 1 + dice.roll(all.len() - 1);
    let renumber = dice.roll(2) == 0;
    let mut left = Files::new();
    for (name, content) in std::mem::take(files) {
        match name.split_once('-') {
            Some((number, rest)) => {
                let number: usize = number.parse().unwrap();
                if number > dropped {
                    let number = if renumber { number - dropped } else { number };
                    left.insert(format!("{number:010}-{rest}"), content);
                }
            }
            None => drop(left.insert(name, content)),
        }
    }
    *files = left;
    format!("the first {dropped} segments dropped{}", if renumber { ", the rest numbered anew" } else { "" })
}

/// A record is changed, and every hash after it computed anew; only the signatures cannot be.
fn forge_the_chain(files: &mut Files, dice: &mut Dice) -> String {
    let all = segments(files);
    let records: Vec<(String, Vec<u8>)> =
        all.iter().flat_map(|name| lines(&files[name]).into_iter().map(move |line| (name.clone(), line))).collect();
    let forged = dice.roll(records.len());
    let mut prev = Hash::GENESIS;
    all.iter().for_each(|name| files.get_mut(name).unwrap().clear());
    for (at, (name, line)) in records.iter().enumerate() {
        let mut record = ocsf::parse(line).unwrap();
        if at == forged {
            record.entry.bytes_out += 1;
        }
        let mut line = samples::line(&record, prev);
        prev = chain::seal(prev, &mut line, 0);
        files.get_mut(name).unwrap().extend_from_slice(&line);
    }
    format!("record {forged} changed, and the chain after it computed anew")
}

/// The last segments go with their checkpoints: what is left is an earlier log, and whole.
fn drop_whole_tail(files: &mut Files, dice: &mut Dice) -> String {
    let all = segments(files);
    let kept = 1 + dice.roll(all.len() - 1);
    let first = all[kept].replace(".jsonl", "");
    files.retain(|name, _| !name.starts_with('0') || *name < first);
    format!("all but the first {kept} segments dropped, checkpoints and all")
}

#[tokio::test]
async fn every_mutation_is_found() {
    let count = std::env::var_os("MUTATIONS").map_or(400, |text| text.to_str().unwrap().parse().unwrap());
    let subject = Subject::new().await;
    assert!(segments(subject.log()).len() > 3);
    assert_eq!(subject.verify(subject.log()), [true, true], "what was not changed is whole");
    let (mut dice, mut found) = (Dice(7), [0, 0]);
    for number in 0..count {
        let (files, what, by) = mutate(&subject, &mut dice);
        assert_ne!(&files, subject.log(), "{number}: {what}");
        let wanted = match by {
            FoundBy::Log => [false, false],
            FoundBy::Anchor => [true, false],
        };
        assert_eq!(subject.verify(&files), wanted, "{number}: {what}: by itself, and against the anchors");
        found[usize::from(by == FoundBy::Anchor)] += 1;
    }
    println!("{count} mutations found: {} by the log itself, {} by an anchor alone", found[0], found[1]);
}
