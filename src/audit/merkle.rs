//! The tree over all records: a Merkle tree as in RFC 6962 (section 2.1), whose entries are the hashes of the chain, one for each
//! line. A line is hashed once, since the hash stands for it, and for all before it.
//!
//! The chain answers "was anything changed" to whoever holds the whole log. The tree answers "was this record in it" to a
//! stranger who holds one line, a few hashes and a signed root. Of a tree that only grows nothing need be kept but the
//! roots of its complete subtrees, at most one for each bit of its size: those stand in every checkpoint, so that a log is
//! continued, and a record proven, from the nearest checkpoint and not from the first record.

use aws_lc_rs::digest::{Context, SHA256, digest};

use super::chain::Hash;

/// A tree known by its complete subtrees, largest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Tree {
    size: u64,
    peaks: Vec<Hash>,
}

impl Tree {
    /// The tree of `size` leaves whose complete subtrees have these roots; `None` when another number of them belongs to
    /// that size.
    pub(super) fn new(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Adds a leaf.
    pub(super) fn push(&mut self, leaf: Hash) {
        let mut node = leaf;
        // Each trailing one of the size is a subtree as large as the node at hand: together they make the next larger.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                node = join(left, node);
            }
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// The root: the hash of nothing for an empty tree.
    pub(super) fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev().copied();
        match peaks.next() {
            Some(last) => peaks.fold(last, |right, left| join(left, right)),
            None => hash_of(digest(&SHA256, b"").as_ref()),
        }
    }

    /// The subtree over `size` leaves from `start` on, if it is one of those whose roots are known.
    fn peak(&self, start: u64, size: u64) -> Option<Hash> {
        let mut at = 0;
        let mut sizes = (0..u64::BITS).rev().map(|bit| 1 << bit).filter(|size| self.size & size != 0);
        self.peaks.iter().copied().find(|_| {
            let this = (at, sizes.next().unwrap_or(0));
            at += this.1;
            this == (start, size)
        })
    }
}

/// A tree of which the last leaves are known, and the rest by the roots of its complete subtrees: enough to prove any of
/// the known leaves.
#[derive(Debug)]
pub(super) struct Known {
    before: Tree,
    leaves: Vec<Hash>,
}

impl Known {
    pub(super) fn after(before: Tree) -> Self {
        Self { before, leaves: Vec::new() }
    }

    pub(super) fn push(&mut self, leaf: Hash) {
        self.leaves.push(leaf);
    }

    /// The audit path of leaf `index` in the tree of all leaves (RFC 6962, section 2.1.1), nearest first; `None` when the
    /// leaf is not among the known ones.
    pub(super) fn path(&self, index: u64) -> Option<Vec<Hash>> {
        let (mut start, mut size) = (0, self.before.size + self.leaves.len() as u64);
        if index < self.before.size || index >= size {
            return None;
        }
        let mut path = Vec::new();
        while size > 1 {
            let left = left_of(size);
            if index < start + left {
                path.push(self.node(start + left, size - left)?);
                size = left;
            } else {
                path.push(self.node(start, left)?);
                (start, size) = (start + left, size - left);
            }
        }
        path.reverse();
        Some(path)
    }

    fn node(&self, start: u64, size: u64) -> Option<Hash> {
        if let Some(peak) = self.before.peak(start, size) {
            return Some(peak);
        }
        if size == 1 {
            return self.leaves.get(usize::try_from(start.checked_sub(self.before.size)?).ok()?).copied();
        }
        let left = left_of(size);
        Some(join(self.node(start, left)?, self.node(start + left, size - left)?))
    }
}

/// The root that a tree of `size` leaves has if `leaf` is its leaf `index` (RFC 9162, section 2.1.3.2); `None` when the path
/// is not as long as it has to be.
pub(super) fn root_with(index: u64, size: u64, leaf: Hash, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut at, mut last, mut node) = (index, size - 1, leaf);
    for &sibling in path {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            node = join(sibling, node);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            node = join(node, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    (last == 0).then_some(node)
}

/// The leaf of an entry.
pub(super) fn leaf(entry: &[u8]) -> Hash {
    tagged(0, &[entry])
}

fn join(left: Hash, right: Hash) -> Hash {
    tagged(1, &[left.as_bytes(), right.as_bytes()])
}

/// Leaves and nodes are told apart by their first byte, so that neither can pass for the other.
fn tagged(tag: u8, parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[tag]);
    parts.iter().for_each(|part| context.update(part));
    hash_of(context.finish().as_ref())
}

fn hash_of(digest: &[u8]) -> Hash {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest);
    Hash::from_bytes(bytes)
}

/// How many leaves the left subtree has: the largest power of two below `size`, which is at least 2.
const fn left_of(size: u64) -> u64 {
    1 << (u64::BITS - 1 - (size - 1).leading_zeros())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(n: u64) -> Hash {
        leaf(n.to_string().as_bytes())
    }

    fn tree(size: u64) -> Tree {
        let mut tree = Tree::default();
        (0..size).for_each(|n| tree.push(line(n)));
        tree
    }

    /// The definition of RFC 6962, section 2.1, word by word.
    fn by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => hash_of(digest(&SHA256, b"").as_ref()),
            [one] => *one,
            more => {
                let (left, right) = more.split_at(more.len().next_power_of_two() / 2);
                join(by_definition(left), by_definition(right))
            }
        }
    }

    /// From the test vectors of the reference implementation (google/certificate-transparency, merkletree tests).
    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let inputs: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let mut tree = Tree::default();
        assert_eq!(tree.root().to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let mut roots = Vec::new();
        for input in inputs {
            tree.push(leaf(input));
            roots.push(tree.root().to_string());
        }
        assert_eq!(roots[0], "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
        assert_eq!(roots[1], "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125");
        assert_eq!(roots[7], "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328");
    }

    #[test]
    fn every_size_has_the_root_of_the_definition() {
        let leaves: Vec<_> = (0..130).map(line).collect();
        for size in 0..=130 {
            assert_eq!(tree(size as u64).root(), by_definition(&leaves[..size]), "{size}");
        }
    }

    #[test]
    fn a_tree_is_not_made_of_another_number_of_subtrees() {
        let whole = tree(11);
        assert_eq!(Tree::new(11, whole.peaks().to_vec()), Some(whole.clone()));
        assert_eq!(Tree::new(12, whole.peaks().to_vec()), None);
        assert_eq!(Tree::new(11, Vec::new()), None);
    }

    proptest! {
        #[test]
        fn every_known_leaf_is_proven_and_nothing_else_is(before in 0..70_u64, after in 1..70_u64, pick in any::<prop::sample::Index>()) {
            let size = before + after;
            let mut known = Known::after(tree(before));
            (before..size).for_each(|n| known.push(line(n)));
            let index = before + pick.index(after as usize) as u64;
            let path = known.path(index).unwrap();
            let root = Some(tree(size).root());
            prop_assert_eq!(root_with(index, size, line(index), &path), root);
            prop_assert_ne!(root_with(index, size, line(size), &path), root);
            if size > 1 {
                prop_assert_ne!(root_with((index + 1) % size, size, line(index), &path), root);
                prop_assert_eq!(root_with(index, size, line(index), &path[1..]), None);
            }
            let longer: Vec<_> = path.iter().copied().chain([line(0)]).collect();
            prop_assert_eq!(root_with(index, size, line(index), &longer), None);
            prop_assert_eq!(root_with(size, size, line(index), &path), None);
            prop_assert_eq!(known.path(size), None);
            prop_assert_eq!(before.checked_sub(1).and_then(|early| known.path(early)), None);
        }
    }
}
