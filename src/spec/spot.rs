//! Where in the tree a resolved value was written, for mistakes that are found after the types were read.

use super::source::Span;
use super::tree::{Node, What};

/// A place in the tree: a value if it is there, else the nearest key above it.
#[derive(Clone, Copy)]
pub struct Spot<'t> {
    node: Option<&'t Node>,
    /// The nearest node above, where there is none.
    above: Option<&'t Node>,
    key: Span,
    /// Nothing here is a stand-in, so it may be complained about.
    pub sound: bool,
}

impl<'t> Spot<'t> {
    pub fn root(node: &'t Node) -> Spot<'t> {
        Spot {
            node: Some(node),
            above: None,
            key: Span::new(1, 1, 1),
            sound: !node.stand_in,
        }
    }

    pub fn key(self, name: &str) -> Spot<'t> {
        let entry = self
            .node
            .and_then(Node::as_map)
            .and_then(|map| map.get(name));
        match entry {
            Some(entry) => Spot {
                node: Some(&entry.node),
                above: None,
                key: entry.key_at,
                sound: self.sound && !entry.node.stand_in,
            },
            None => Spot {
                node: None,
                above: self.node.or(self.above),
                ..self
            },
        }
    }

    pub fn nth(self, index: usize) -> Spot<'t> {
        match self.node.map(|node| &node.what) {
            Some(What::List(items)) => match items.get(index) {
                Some(item) => Spot {
                    node: Some(item),
                    above: None,
                    key: item.at,
                    sound: self.sound && !item.stand_in,
                },
                None => self,
            },
            _ => self,
        }
    }

    /// What to underline: the key when the value is a map or a list, or is not there.
    pub fn span(self) -> Span {
        match self.node {
            Some(node) if matches!(node.what, What::Scalar { .. }) => node.at,
            _ => self.key,
        }
    }

    /// Whether it was written, and is not a default.
    pub fn is_written(self) -> bool {
        self.node.is_some()
    }

    /// Whether what is looked for here, or all of it, may stand under a key that was misspelt.
    pub fn has_lost(self) -> bool {
        self.node
            .or(self.above)
            .and_then(Node::as_map)
            .is_some_and(|map| map.lost)
    }

    pub fn key_span(self) -> Span {
        self.key
    }
}
