//! The tree of an expression, and the parser that builds it.
//!
//! Nodes lie in one list and name each other by index, children before parents; so neither parsing, nor dropping, nor
//! (since depth is checked before a tree is handed out) evaluation can overflow the stack.

use std::ops::Range;
use std::sync::Arc;

use crate::functions::{Builtin, Scope};
use crate::limits::{EXPRESSION_DEPTH_MAX, EXPRESSION_LENGTH_MAX, FAULTS_MAX};
use crate::token::{Binary, Lexer, Token, TokenKind};
use crate::{Error, ErrorKind, Value};

pub(crate) type NodeIndex = usize;

#[derive(Clone, Debug)]
pub(crate) enum Node {
    Literal(Value),
    /// `*`: as an index it selects everything, elsewhere it is the text `*`.
    Wildcard,
    /// A context by its name in lower case.
    Context(Arc<str>),
    Index {
        target: NodeIndex,
        key: NodeIndex,
    },
    Not(NodeIndex),
    And(Vec<NodeIndex>),
    Or(Vec<NodeIndex>),
    Compare {
        operator: Comparison,
        left: NodeIndex,
        right: NodeIndex,
    },
    Call {
        function: Function,
        arguments: Vec<NodeIndex>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What a call calls.
#[derive(Clone, Debug)]
pub(crate) enum Function {
    Builtin(Builtin),
    /// One of the scope's functions, spelled as its signature.
    Environment(Arc<str>),
}

impl Function {
    pub(crate) fn name(&self) -> &str {
        match self {
            Function::Builtin(builtin) => builtin.name(),
            Function::Environment(name) => name,
        }
    }
}

/// A parsed expression: its nodes and where in the text each stands.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
    pub(crate) ranges: Vec<Range<u32>>,
    pub(crate) root: NodeIndex,
}

/// Parses a text; an empty one is `null`.
pub(crate) fn parse(text: &str, scope: &Scope<'_>) -> Result<Tree, Error> {
    let mut of_names = Vec::new();
    let tree = read(text, scope, &mut of_names);
    of_names.into_iter().next().map_or(tree, Err)
}

/// Parses a text, and goes on behind names that the scope does not know and numbers of arguments that do not fit: these
/// faults are added to `of_names`, at most [`FAULTS_MAX`]. The error is what no reading goes on behind.
pub(crate) fn read(text: &str, scope: &Scope<'_>, of_names: &mut Vec<Error>) -> Result<Tree, Error> {
    // A UTF-16 text is never longer than its UTF-8 bytes, so most texts are accepted without being counted.
    if text.len() > EXPRESSION_LENGTH_MAX && text.encode_utf16().count() > EXPRESSION_LENGTH_MAX {
        let message = format!("Exceeded max expression length {EXPRESSION_LENGTH_MAX}");
        return Err(Error::plain(ErrorKind::Limit, message, 0..text.len()));
    }
    let mut parser = Parser {
        text,
        scope,
        nodes: Vec::new(),
        ranges: Vec::new(),
        depths: Vec::new(),
        operands: Vec::new(),
        operators: Vec::new(),
        called: None,
        of_names,
    };
    let mut lexer = Lexer::new(text);
    while let Some(token) = lexer.next()? {
        parser.take(token);
    }
    parser.finish()
}

/// An operator whose right side is still being read.
enum Pending {
    Group,
    Index,
    Arguments(Call),
    Not(Range<usize>),
    Binary(Binary),
}

struct Call {
    function: Function,
    name: Range<usize>,
    arity: Range<usize>,
    /// How many operands lay on the stack before the first argument.
    operands_before: usize,
}

struct Parser<'p> {
    text: &'p str,
    scope: &'p Scope<'p>,
    nodes: Vec<Node>,
    ranges: Vec<Range<u32>>,
    depths: Vec<u32>,
    operands: Vec<NodeIndex>,
    operators: Vec<Pending>,
    /// The function whose `(` is the next word.
    called: Option<Call>,
    of_names: &'p mut Vec<Error>,
}

impl Parser<'_> {
    fn take(&mut self, token: Token) {
        let Token { kind, range } = token;
        match kind {
            TokenKind::Null => self.push_literal(Value::Null, range),
            TokenKind::Bool(truth) => self.push_literal(Value::Bool(truth), range),
            TokenKind::Number(number) => self.push_literal(Value::Number(number), range),
            TokenKind::String(text) => self.push_literal(Value::String(text), range),
            TokenKind::Context => self.push_context(range),
            // After `[` it waits for `]` to take it as the key; after `.` it is the key at once.
            TokenKind::Wildcard => self.push(Node::Wildcard, range, 1),
            TokenKind::PropertyWildcard => {
                self.push(Node::Wildcard, range, 1);
                self.index();
            }
            TokenKind::PropertyName => {
                self.push_literal(self.text[range.clone()].into(), range);
                self.index();
            }
            TokenKind::Function => self.called = Some(self.resolve(range)),
            TokenKind::StartArguments => self.operators.extend(self.called.take().map(Pending::Arguments)),
            TokenKind::StartGroup => self.operators.push(Pending::Group),
            TokenKind::StartIndex => self.operators.push(Pending::Index),
            TokenKind::Dereference => {}
            TokenKind::Not => self.operators.push(Pending::Not(range)),
            TokenKind::Binary(operator) => {
                self.apply(precedence(operator));
                self.operators.push(Pending::Binary(operator));
            }
            TokenKind::Separator => self.apply(0),
            TokenKind::EndGroup => {
                self.apply(0);
                self.operators.pop();
            }
            TokenKind::EndIndex => {
                self.apply(0);
                self.operators.pop();
                self.index();
            }
            TokenKind::EndArguments => {
                self.apply(0);
                if let Some(Pending::Arguments(call)) = self.operators.pop() {
                    self.call(call, range.end);
                }
            }
        }
    }

    fn finish(mut self) -> Result<Tree, Error> {
        self.apply(0);
        if self.operands.is_empty() {
            self.push_literal(Value::Null, 0..self.text.len());
        }
        let root = self.pop();
        if self.depths[root] > EXPRESSION_DEPTH_MAX {
            let message = format!("Exceeded max expression depth {EXPRESSION_DEPTH_MAX}");
            return Err(Error::plain(ErrorKind::Limit, message, 0..self.text.len()));
        }
        Ok(Tree { nodes: self.nodes, ranges: self.ranges, root })
    }

    fn push(&mut self, node: Node, range: Range<usize>, depth: u32) {
        self.operands.push(self.nodes.len());
        self.nodes.push(node);
        // The length limit keeps offsets far below 4 GiB.
        self.ranges.push(range.start as u32..range.end as u32);
        self.depths.push(depth);
    }

    fn push_literal(&mut self, value: Value, range: Range<usize>) {
        self.push(Node::Literal(value), range, 1);
    }

    fn fault(&mut self, description: &str, range: Range<usize>) {
        if self.of_names.len() < FAULTS_MAX {
            self.of_names.push(Error::at_word(ErrorKind::Parse, description, self.text, range));
        }
    }

    fn push_context(&mut self, range: Range<usize>) {
        let name = &self.text[range.clone()];
        if !self.scope.has_context(name) {
            self.fault("Unrecognized named-value", range.clone());
        }
        self.push(Node::Context(name.to_ascii_lowercase().into()), range, 1);
    }

    fn resolve(&mut self, range: Range<usize>) -> Call {
        let name = &self.text[range.clone()];
        let (function, arity) = self.scope.function(name).unwrap_or_else(|| {
            self.fault("Unrecognized function", range.clone());
            (Function::Environment(name.into()), 0..usize::MAX)
        });
        Call { function, name: range, arity, operands_before: self.operands.len() }
    }

    fn call(&mut self, call: Call, end: usize) {
        let count = self.operands.len() - call.operands_before;
        let fault = match &call.function {
            _ if count < call.arity.start => Some("Too few parameters supplied"),
            _ if count >= call.arity.end => Some("Too many parameters supplied"),
            Function::Builtin(Builtin::Case) if count.is_multiple_of(2) => {
                Some("Even number of parameters supplied, requires an odd number of parameters")
            }
            _ => None,
        };
        if let Some(description) = fault {
            self.fault(description, call.name.clone());
        }
        let arguments = self.operands.split_off(call.operands_before);
        let depth = 1 + arguments.iter().map(|argument| self.depths[*argument]).max().unwrap_or(0);
        self.push(Node::Call { function: call.function, arguments }, call.name.start..end, depth);
    }

    /// The topmost operand. The lexer's order of words guarantees one wherever this is called.
    fn pop(&mut self) -> NodeIndex {
        self.operands.pop().expect("the lexer lets an operator through only after its operand")
    }

    fn push_pair(&mut self, node: Node, left: NodeIndex, right: NodeIndex) {
        let depth = 1 + self.depths[left].max(self.depths[right]);
        let range = self.ranges[left].start as usize..self.ranges[right].end as usize;
        self.push(node, range, depth);
    }

    fn index(&mut self) {
        let key = self.pop();
        let target = self.pop();
        self.push_pair(Node::Index { target, key }, target, key);
    }

    /// Applies waiting operators that bind at least as tightly, back to the innermost open bracket.
    fn apply(&mut self, precedence_min: u8) {
        while let Some(pending) = self.operators.pop() {
            match pending {
                Pending::Not(range) => {
                    let operand = self.pop();
                    let range = range.start..self.ranges[operand].end as usize;
                    self.push(Node::Not(operand), range, 1 + self.depths[operand]);
                }
                Pending::Binary(operator) if precedence(operator) >= precedence_min => self.apply_binary(operator),
                _ => {
                    self.operators.push(pending);
                    return;
                }
            }
        }
    }

    fn apply_binary(&mut self, operator: Binary) {
        let right = self.pop();
        let left = self.pop();
        let comparison = match operator {
            Binary::Or | Binary::And => return self.join(operator, left, right),
            Binary::Equal => Comparison::Equal,
            Binary::NotEqual => Comparison::NotEqual,
            Binary::Less => Comparison::Less,
            Binary::LessOrEqual => Comparison::LessOrEqual,
            Binary::Greater => Comparison::Greater,
            Binary::GreaterOrEqual => Comparison::GreaterOrEqual,
        };
        self.push_pair(Node::Compare { operator: comparison, left, right }, left, right);
    }

    /// `a && b && c` becomes one node, with or without parentheses, so that a long chain is not a deep one.
    fn join(&mut self, operator: Binary, left: NodeIndex, right: NodeIndex) {
        let mut operands = Vec::new();
        let mut depth = 0;
        for side in [left, right] {
            match (operator, &mut self.nodes[side]) {
                (Binary::And, Node::And(inner)) | (Binary::Or, Node::Or(inner)) => {
                    operands = if operands.is_empty() {
                        std::mem::take(inner)
                    } else {
                        [operands, std::mem::take(inner)].concat()
                    };
                    depth = depth.max(self.depths[side]);
                }
                _ => {
                    operands.push(side);
                    depth = depth.max(1 + self.depths[side]);
                }
            }
        }
        let range = self.ranges[left].start as usize..self.ranges[right].end as usize;
        let node = if operator == Binary::And { Node::And(operands) } else { Node::Or(operands) };
        self.push(node, range, depth);
    }
}

/// How tightly an operator binds; `!` binds tighter than all of them, brackets and `.` tighter still.
fn precedence(operator: Binary) -> u8 {
    match operator {
        Binary::Or => 1,
        Binary::And => 2,
        Binary::Equal | Binary::NotEqual => 3,
        Binary::Less | Binary::LessOrEqual | Binary::Greater | Binary::GreaterOrEqual => 4,
    }
}
