//! What was written, by whom, and behind what: the truth that everything is judged by.
//!
//! Guarantees one node for each record that any server ever wrote, under the record that it wrote before. What a server has
//! replayed is then a node, and what it should have is a line from the root.

use std::collections::HashMap;

use fixtures::pen::Written;

/// A record that was written.
pub type NodeId = usize;

/// What a record does to recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Data,
    Switch,
    Checkpoint {
        is_shutdown: bool,
        redo: u64,
        this: u32,
        previous: u32,
    },
    EndOfRecovery {
        this: u32,
        previous: u32,
    },
    BackupEnd {
        start: u64,
    },
    Overwrite,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub parent: Option<NodeId>,
    pub written: Written,
    /// The timeline that it was written on.
    pub timeline: u32,
    /// Which server wrote it.
    pub server: usize,
    /// Which life of which server: servers that forgot what others wrote choose the same timelines.
    pub life: usize,
    pub kind: Kind,
}

#[derive(Clone, Debug, Default)]
pub struct Tree {
    pub nodes: Vec<Node>,
    known: HashMap<Written, NodeId>,
    lives: usize,
}

impl Tree {
    #[must_use]
    pub fn new() -> Tree {
        Tree::default()
    }

    /// A number for what a server writes from now on, until it dies.
    pub fn new_life(&mut self) -> usize {
        self.lives += 1;
        self.lives
    }

    pub fn add(&mut self, node: Node) -> NodeId {
        let id = self.nodes.len();
        let before = self.known.insert(node.written, id);
        assert!(before.is_none(), "two records are the same: {node:?}");
        self.nodes.push(node);
        id
    }

    #[must_use]
    pub fn find(&self, written: Written) -> Option<NodeId> {
        self.known.get(&written).copied()
    }

    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// Whether `ancestor` is `id` or was written before it on its line.
    #[must_use]
    pub fn is_on_line(&self, ancestor: NodeId, id: NodeId) -> bool {
        let mut at = Some(id);
        while let Some(now) = at {
            if now == ancestor {
                return true;
            }
            if now < ancestor {
                return false;
            }
            at = self.nodes[now].parent;
        }
        false
    }

    /// The records written directly behind this one.
    pub fn behind(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let later = self.nodes.iter().enumerate().skip(id + 1);
        later
            .filter(move |(_, node)| node.parent == Some(id))
            .map(|(id, _)| id)
    }

    #[must_use]
    pub fn described(&self, id: NodeId) -> String {
        let node = self.node(id);
        format!(
            "record {} (timeline {}, written by server {})",
            crate::lsn(node.written.lsn),
            node.timeline,
            node.server
        )
    }
}
