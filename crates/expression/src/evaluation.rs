//! An expression's value in an environment, within bounds of memory and steps.
//!
//! Recursion is as deep as the tree, which the parser bounds. Memory is counted as GitHub does: what a call's arguments
//! needed is given back when the call has its result.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::functions::{Builtin, FormatPiece, next_format_piece};
use crate::json::{self, ITEM_BYTES, string_bytes};
use crate::syntax::{Comparison, Function, Node, NodeIndex, Tree};
use crate::{Array, CallError, Environment, Error, ErrorKind, Limits, Object, Value, letter_case};

pub(crate) const MEMORY_EXCEEDED: &str = "The maximum allowed memory size was exceeded";

/// So many bytes of text count as one step.
const STEP_BYTES: usize = 64;

/// The value of a tree. `steps` is what was used before, of the same limits; it is brought up to date.
pub(crate) fn evaluate(
    tree: &Tree,
    text: &str,
    environment: &dyn Environment,
    limits: Limits,
    steps: &mut u64,
) -> Result<Value, Error> {
    let mut evaluation = Evaluation { tree, text, environment, limits, memory_bytes: 0, steps: *steps };
    let value = evaluation.value(tree.root);
    *steps = evaluation.steps;
    value
}

struct Evaluation<'e> {
    tree: &'e Tree,
    text: &'e str,
    environment: &'e dyn Environment,
    limits: Limits,
    memory_bytes: usize,
    steps: u64,
}

impl Evaluation<'_> {
    fn value(&mut self, node: NodeIndex) -> Result<Value, Error> {
        self.step(node, 0)?;
        let tree = self.tree;
        match &tree.nodes[node] {
            Node::Literal(value) => Ok(value.clone()),
            Node::Wildcard => Ok("*".into()),
            Node::Context(name) => self.environment.context(name).ok_or_else(|| self.unknown_context(node)),
            Node::Not(operand) => {
                let before = self.memory_bytes;
                let truth = self.value(*operand)?.is_truthy();
                self.memory_bytes = before;
                Ok(Value::Bool(!truth))
            }
            Node::And(operands) => self.first(operands, |value| !value.is_truthy()),
            Node::Or(operands) => self.first(operands, Value::is_truthy),
            Node::Compare { operator, left, right } => {
                let before = self.memory_bytes;
                let (left, right) = (self.value(*left)?, self.value(*right)?);
                self.step(node, text_length(&left) + text_length(&right))?;
                self.memory_bytes = before;
                Ok(Value::Bool(compare(*operator, &left, &right)))
            }
            Node::Index { target, key } => {
                let target = self.value(*target)?;
                self.index(node, &target, *key)
            }
            Node::Call { function, arguments } => self.call(node, function, arguments),
        }
    }

    /// The first operand that decides, or the last one.
    fn first(&mut self, operands: &[NodeIndex], decides: fn(&Value) -> bool) -> Result<Value, Error> {
        let mut value = Value::Null;
        for operand in operands {
            value = self.value(*operand)?;
            if decides(&value) {
                break;
            }
        }
        Ok(value)
    }

    // Indexing. GitHub: `Index.EvaluateCore`.

    fn index(&mut self, node: NodeIndex, target: &Value, key: NodeIndex) -> Result<Value, Error> {
        let is_wildcard = matches!(self.tree.nodes[key], Node::Wildcard);
        match target {
            // The key of what is no collection is not even evaluated.
            _ if target.is_primitive() && is_wildcard => Ok(filtered(Vec::new())),
            _ if target.is_primitive() => Ok(Value::Null),
            Value::Array(array) if array.is_filtered() => self.index_filtered(node, array, key, is_wildcard),
            _ if is_wildcard => {
                let mut items = Vec::new();
                self.add_items(node, target, &mut items)?;
                Ok(filtered(items))
            }
            _ => {
                let key = self.key(node, key)?;
                Ok(key.of(target).cloned().unwrap_or_default())
            }
        }
    }

    /// Indexes each item; those that have no such key leave nothing.
    fn index_filtered(
        &mut self,
        node: NodeIndex,
        array: &Array,
        key: NodeIndex,
        is_wildcard: bool,
    ) -> Result<Value, Error> {
        let mut items = Vec::new();
        if is_wildcard {
            for item in array.items() {
                self.step(node, 0)?;
                self.add_items(node, item, &mut items)?;
            }
            return Ok(filtered(items));
        }
        let key = self.key(node, key)?;
        for item in array.items() {
            self.step(node, 0)?;
            if let Some(found) = key.of(item) {
                self.charge(node, ITEM_BYTES)?;
                items.push(found.clone());
            }
        }
        Ok(filtered(items))
    }

    fn key(&mut self, node: NodeIndex, key: NodeIndex) -> Result<Key, Error> {
        let value = self.value(key)?;
        self.step(node, text_length(&value))?;
        Ok(Key::new(&value))
    }

    fn add_items(&mut self, node: NodeIndex, collection: &Value, items: &mut Vec<Value>) -> Result<(), Error> {
        let count = match collection {
            Value::Array(array) => array.items().len(),
            Value::Object(object) => object.entries().len(),
            _ => return Ok(()),
        };
        self.charge(node, count.saturating_mul(ITEM_BYTES))?;
        self.step(node, count.saturating_mul(STEP_BYTES))?;
        match collection {
            Value::Array(array) => items.extend_from_slice(array.items()),
            Value::Object(object) => items.extend(object.entries().iter().map(|(_, value)| value.clone())),
            _ => {}
        }
        Ok(())
    }

    // Functions.

    fn call(&mut self, node: NodeIndex, function: &Function, arguments: &[NodeIndex]) -> Result<Value, Error> {
        let before = self.memory_bytes;
        let result = match function {
            Function::Environment(name) => self.call_environment(node, name, arguments)?,
            Function::Builtin(Builtin::Case) => return self.case(node, arguments),
            Function::Builtin(Builtin::Contains) => self.contains(node, arguments)?.into(),
            Function::Builtin(Builtin::StartsWith) => {
                self.compare_texts(node, arguments, letter_case::starts_with)?.into()
            }
            Function::Builtin(Builtin::EndsWith) => self.compare_texts(node, arguments, letter_case::ends_with)?.into(),
            Function::Builtin(Builtin::Format) => self.format(node, arguments)?.into(),
            Function::Builtin(Builtin::Join) => self.join(node, arguments)?.into(),
            Function::Builtin(Builtin::ToJson) => self.json_text(node, arguments)?.into(),
            Function::Builtin(Builtin::FromJson) => {
                let read = self.json_value(node, arguments)?;
                self.memory_bytes = before;
                self.charge(node, read.bytes)?;
                return Ok(read.value);
            }
        };
        self.memory_bytes = before;
        if let Value::String(text) = &result {
            self.charge(node, string_bytes(text))?;
        }
        Ok(result)
    }

    fn call_environment(&mut self, node: NodeIndex, name: &str, arguments: &[NodeIndex]) -> Result<Value, Error> {
        let values = arguments.iter().map(|argument| self.value(*argument)).collect::<Result<Vec<_>, _>>()?;
        self.environment.call(name, &values).map_err(|error| self.fault(node, call_fault(name, error)))
    }

    fn case(&mut self, node: NodeIndex, arguments: &[NodeIndex]) -> Result<Value, Error> {
        let (pairs, default) = arguments.as_chunks::<2>();
        for [predicate, chosen] in pairs {
            match self.value(*predicate)? {
                Value::Bool(true) => return self.value(*chosen),
                Value::Bool(false) => {}
                _ => return Err(self.fault(node, "case predicate must evaluate to a boolean value")),
            }
        }
        default.first().map_or(Ok(Value::Null), |default| self.value(*default))
    }

    fn contains(&mut self, node: NodeIndex, arguments: &[NodeIndex]) -> Result<bool, Error> {
        let left = self.value(arguments[0])?;
        match &left {
            Value::Object(_) => Ok(false),
            Value::Array(array) if array.items().is_empty() => Ok(false),
            Value::Array(array) => {
                let right = self.value(arguments[1])?;
                let right_length = text_length(&right);
                for item in array.items() {
                    self.step(node, text_length(item).min(right_length))?;
                    if right.equals(item) {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            _ => {
                let right = self.value(arguments[1])?;
                self.step(node, text_length(&left) + text_length(&right))?;
                Ok(right.is_primitive() && letter_case::contains(&left.to_text(), &right.to_text()))
            }
        }
    }

    fn compare_texts(
        &mut self,
        node: NodeIndex,
        arguments: &[NodeIndex],
        holds: fn(&str, &str) -> bool,
    ) -> Result<bool, Error> {
        let left = self.value(arguments[0])?;
        if !left.is_primitive() {
            return Ok(false);
        }
        let right = self.value(arguments[1])?;
        self.step(node, text_length(&left) + text_length(&right))?;
        Ok(right.is_primitive() && holds(&left.to_text(), &right.to_text()))
    }

    fn format(&mut self, node: NodeIndex, arguments: &[NodeIndex]) -> Result<String, Error> {
        let format = self.value(arguments[0])?;
        let format = format.to_text();
        // The whole format text is checked before the first argument is evaluated.
        let mut rest: &str = &format;
        while !rest.is_empty() {
            let Some((piece, after)) = next_format_piece(rest) else {
                return Err(self.fault(node, format!("The following format string is invalid: {format}")));
            };
            if matches!(piece, FormatPiece::Argument(place, _) if place + 1 >= arguments.len()) {
                let message = "The following format string references more arguments than were supplied";
                return Err(self.fault(node, format!("{message}: {format}")));
            }
            rest = after;
        }
        self.format_arguments(node, &format, arguments)
    }

    /// Formats by a text that was checked. An argument is evaluated when the text first names it, and once.
    fn format_arguments(&mut self, node: NodeIndex, format: &str, arguments: &[NodeIndex]) -> Result<String, Error> {
        let mut values: Vec<Option<Value>> = vec![None; arguments.len()];
        let mut result = String::new();
        let mut rest = format;
        while let Some((piece, after)) = next_format_piece(rest).filter(|_| !rest.is_empty()) {
            rest = after;
            let (place, specifiers) = match piece {
                FormatPiece::Argument(place, specifiers) => (place + 1, specifiers),
                FormatPiece::Text(text) => {
                    self.append(node, &mut result, text)?;
                    continue;
                }
            };
            if values[place].is_none() {
                values[place] = Some(self.value(arguments[place])?);
            }
            let value = values[place].as_ref().unwrap_or(&Value::Null);
            if !specifiers.is_empty() {
                let (specifiers, kind) = (specifiers.replace("}}", "}"), value.kind());
                let message =
                    format!("The format specifiers '{specifiers}' are not valid for objects of type '{kind}'");
                return Err(self.fault(node, message));
            }
            self.append(node, &mut result, &value.to_text())?;
        }
        Ok(result)
    }

    fn join(&mut self, node: NodeIndex, arguments: &[NodeIndex]) -> Result<String, Error> {
        let list = self.value(arguments[0])?;
        let Value::Array(array) = &list else {
            return Ok(if list.is_primitive() { list.to_text().into_owned() } else { String::new() });
        };
        let mut separator = Cow::Borrowed(",");
        let given;
        if let (2.., Some(argument)) = (array.items().len(), arguments.get(1)) {
            given = self.value(*argument)?;
            if given.is_primitive() {
                separator = given.to_text();
            }
        }
        let mut result = String::new();
        for (index, item) in array.items().iter().enumerate() {
            if index > 0 {
                self.append(node, &mut result, &separator)?;
            }
            self.append(node, &mut result, &item.to_text())?;
        }
        Ok(result)
    }

    fn json_text(&mut self, node: NodeIndex, arguments: &[NodeIndex]) -> Result<String, Error> {
        let value = self.value(arguments[0])?;
        let text = json::write(&value, self.limits.memory_bytes_max).map_err(|fault| self.json_error(node, fault))?;
        self.step(node, text.len())?;
        Ok(text)
    }

    fn json_value(&mut self, node: NodeIndex, arguments: &[NodeIndex]) -> Result<json::Read, Error> {
        let value = self.value(arguments[0])?;
        let text = value.to_text();
        self.step(node, text.len())?;
        json::read(&text, self.limits.memory_bytes_max).map_err(|fault| self.json_error(node, fault))
    }

    fn append(&mut self, node: NodeIndex, result: &mut String, text: &str) -> Result<(), Error> {
        if result.len() + text.len() > self.limits.memory_bytes_max {
            return Err(self.limit(node, MEMORY_EXCEEDED));
        }
        self.step(node, text.len())?;
        result.push_str(text);
        Ok(())
    }

    // Bounds and errors.

    /// Counts one step, and those of so many bytes of text.
    fn step(&mut self, node: NodeIndex, bytes: usize) -> Result<(), Error> {
        self.steps = self.steps.saturating_add(1 + (bytes / STEP_BYTES) as u64);
        if self.steps > self.limits.steps_max {
            return Err(self.limit(node, "The maximum allowed number of evaluation steps was exceeded"));
        }
        Ok(())
    }

    fn charge(&mut self, node: NodeIndex, bytes: usize) -> Result<(), Error> {
        self.memory_bytes = self.memory_bytes.saturating_add(bytes);
        if self.memory_bytes > self.limits.memory_bytes_max {
            return Err(self.limit(node, MEMORY_EXCEEDED));
        }
        Ok(())
    }

    fn range(&self, node: NodeIndex) -> std::ops::Range<usize> {
        let range = &self.tree.ranges[node];
        range.start as usize..range.end as usize
    }

    fn fault(&self, node: NodeIndex, message: impl Into<String>) -> Error {
        Error::plain(ErrorKind::Evaluate, message, self.range(node))
    }

    fn limit(&self, node: NodeIndex, message: &str) -> Error {
        Error::plain(ErrorKind::Limit, message, self.range(node))
    }

    fn json_error(&self, node: NodeIndex, fault: json::Fault) -> Error {
        Error::plain(fault.kind(), fault.message(), self.range(node))
    }

    fn unknown_context(&self, node: NodeIndex) -> Error {
        Error::at_word(ErrorKind::Evaluate, "Unrecognized named-value", self.text, self.range(node))
    }
}

/// An index that was evaluated, as what it is to arrays and to objects.
struct Key {
    /// The place in an array: the whole part of a number from 0 on.
    place: Option<usize>,
    /// The name in an object; arrays and objects are none.
    name: Option<String>,
}

impl Key {
    fn new(value: &Value) -> Key {
        let number = value.to_number();
        let place = (number >= 0.0 && number <= f64::from(i32::MAX)).then_some(number as usize);
        let name = value.is_primitive().then(|| value.to_text().into_owned());
        Key { place, name }
    }

    fn of<'v>(&self, collection: &'v Value) -> Option<&'v Value> {
        match collection {
            Value::Array(array) => array.items().get(self.place?),
            Value::Object(object) => Object::get(object, self.name.as_deref()?),
            _ => None,
        }
    }
}

/// What to tell the user when a function of the environment gave no result.
pub(crate) fn call_fault(name: &str, error: CallError) -> String {
    match error {
        CallError::Unavailable => format!("The function '{name}' is not available here"),
        CallError::Failed(cause) => format!("The function '{name}' failed: {cause}"),
    }
}

fn filtered(items: Vec<Value>) -> Value {
    Value::Array(Array::filtered(items).into())
}

fn compare(operator: Comparison, left: &Value, right: &Value) -> bool {
    let is = |wanted| left.compare(right) == Some(wanted);
    match operator {
        Comparison::Equal => left.equals(right),
        Comparison::NotEqual => !left.equals(right),
        Comparison::Less => is(Ordering::Less),
        Comparison::LessOrEqual => left.equals(right) || is(Ordering::Less),
        Comparison::Greater => is(Ordering::Greater),
        Comparison::GreaterOrEqual => left.equals(right) || is(Ordering::Greater),
    }
}

fn text_length(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        _ => 0,
    }
}
