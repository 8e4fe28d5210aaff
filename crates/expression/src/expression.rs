//! One expression: parsed once, asked what it names, evaluated as often as wanted.

use std::fmt;
use std::sync::Arc;

use crate::evaluation::evaluate;
use crate::syntax::{self, Node, NodeIndex, Tree};
use crate::{Environment, Error, Limits, Scope, Value};

/// Parses the text of one expression, without `${{ }}`. Any context and the functions of GitHub's workflows are allowed.
/// An empty text is `null`.
pub fn parse(text: &str) -> Result<Expression, Error> {
    parse_in(text, &Scope::default())
}

/// Parses the text of one expression that may use only the names of this scope.
pub fn parse_in(text: &str, scope: &Scope<'_>) -> Result<Expression, Error> {
    Ok(Expression { tree: syntax::parse(text, scope)?, text: text.into() })
}

/// Reads the text of one expression with every fault in it, added in order: all names that the scope does not have, and what
/// ends the reading. `None` only in that case; an expression with faults is there to be asked what it reads, not to be evaluated.
pub(crate) fn read_in(text: &str, scope: &Scope<'_>, faults: &mut Vec<Error>) -> Option<Expression> {
    match syntax::read(text, scope, faults) {
        Ok(tree) => Some(Expression { tree, text: text.into() }),
        Err(fault) => {
            faults.push(fault);
            None
        }
    }
}

/// An expression that was parsed. Its tree is at most [`EXPRESSION_DEPTH_MAX`](crate::limits::EXPRESSION_DEPTH_MAX) deep.
#[derive(Clone, Debug)]
pub struct Expression {
    tree: Tree,
    text: Arc<str>,
}

/// A context that an expression reads, and the way into it as far as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContextPath {
    /// The context's name in lower case.
    pub context: Arc<str>,
    /// The keys in order; empty if the whole context is read.
    pub keys: Vec<PathKey>,
}

/// One step into a context.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathKey {
    /// A literal key, as written: `.name`, `['name']`, `[0]`.
    Name(Arc<str>),
    /// `.*` or `[*]`.
    Any,
    /// A key that is itself computed.
    Computed,
}

impl ContextPath {
    /// The literal key at that place, if there is one: in `needs.build.outputs`, `build` at 0.
    pub fn name(&self, place: usize) -> Option<&str> {
        match self.keys.get(place) {
            Some(PathKey::Name(name)) => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for ContextPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.context)?;
        for key in &self.keys {
            match key {
                PathKey::Name(name) => write!(formatter, ".{name}")?,
                PathKey::Any => formatter.write_str(".*")?,
                PathKey::Computed => formatter.write_str("[?]")?,
            }
        }
        Ok(())
    }
}

impl Expression {
    /// The text it was parsed from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The value in this environment, within the default [`Limits`].
    pub fn evaluate(&self, environment: &dyn Environment) -> Result<Value, Error> {
        self.evaluate_within(environment, Limits::default())
    }

    /// The value in this environment. Errors are of kind `Evaluate` or `Limit`.
    pub fn evaluate_within(&self, environment: &dyn Environment, limits: Limits) -> Result<Value, Error> {
        self.evaluate_after(environment, limits, &mut 0)
    }

    /// The value, as part of a longer evaluation that has used so many steps.
    pub(crate) fn evaluate_after(
        &self,
        environment: &dyn Environment,
        limits: Limits,
        steps: &mut u64,
    ) -> Result<Value, Error> {
        evaluate(&self.tree, &self.text, environment, limits, steps)
    }

    /// The value, if the expression is nothing but a literal.
    pub fn literal(&self) -> Option<&Value> {
        match &self.tree.nodes[self.tree.root] {
            Node::Literal(value) => Some(value),
            _ => None,
        }
    }

    /// Every read of a context, in the order of the text; the same path may come more than once.
    pub fn context_paths(&self) -> Vec<ContextPath> {
        let mut paths = Vec::new();
        self.collect_paths(self.tree.root, &mut paths);
        paths
    }

    fn collect_paths(&self, index: NodeIndex, paths: &mut Vec<ContextPath>) {
        match &self.tree.nodes[index] {
            Node::Literal(_) | Node::Wildcard => {}
            Node::Context(name) => paths.push(ContextPath { context: name.clone(), keys: Vec::new() }),
            Node::Not(operand) => self.collect_paths(*operand, paths),
            Node::Compare { left, right, .. } => {
                self.collect_paths(*left, paths);
                self.collect_paths(*right, paths);
            }
            Node::And(nodes) | Node::Or(nodes) | Node::Call { arguments: nodes, .. } => {
                nodes.iter().for_each(|node| self.collect_paths(*node, paths));
            }
            Node::Index { target, key } => {
                let path = self.collect_index(*target, paths);
                if let Some(path) = path {
                    paths[path].keys.push(self.path_key(*key));
                }
                self.collect_paths(*key, paths);
            }
        }
    }

    /// Collects the paths of what is indexed; gives the place of the path that the index lengthens.
    fn collect_index(&self, target: NodeIndex, paths: &mut Vec<ContextPath>) -> Option<usize> {
        let place = paths.len();
        self.collect_paths(target, paths);
        let mut innermost = target;
        while let Node::Index { target, .. } = &self.tree.nodes[innermost] {
            innermost = *target;
        }
        matches!(self.tree.nodes[innermost], Node::Context(_)).then_some(place)
    }

    fn path_key(&self, key: NodeIndex) -> PathKey {
        match &self.tree.nodes[key] {
            Node::Wildcard => PathKey::Any,
            Node::Literal(value) => PathKey::Name(value.to_text().into()),
            _ => PathKey::Computed,
        }
    }

    /// The functions it calls, spelled as their signatures, sorted, no duplicates.
    pub fn functions(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.tree.nodes.iter().filter_map(called).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether it calls `success`, `failure`, `cancelled` or `always`, which turns off the implied `success()` of a condition.
    pub fn calls_status_function(&self) -> bool {
        let is_status = |name| matches!(name, "success" | "failure" | "cancelled" | "always");
        self.tree.nodes.iter().filter_map(called).any(is_status)
    }
}

fn called(node: &Node) -> Option<&str> {
    match node {
        Node::Call { function, .. } => Some(function.name()),
        _ => None,
    }
}
