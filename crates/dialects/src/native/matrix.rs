//! A matrix: axes, `include`, `exclude`, and the legs they make.
//!
//! The rules are GitHub's (docs.github.com, "Running variations of jobs in a workflow"): `exclude` first, by any subset of
//! axes; then each `include` is merged into every combination of the axes whose own values it does not change, where it
//! may change what an earlier `include` added; one that fits none is a combination of its own.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

/// The most legs of one job.
pub(crate) const LEGS_MAX: usize = 10_000;
/// Combinations looked at for one job, before `exclude`.
const COMBINATIONS_MAX: usize = 100_000;
/// Comparisons of combinations with `include` and `exclude`, for one job.
const COMPARISONS_MAX: usize = 20_000_000;
/// Characters of one value in a leg's name.
const NAME_PART_CHARACTERS_MAX: usize = 60;

/// Values by name, in the order in which they were written.
pub(crate) type Values = Vec<(String, Value)>;

/// A matrix whose every value is known.
#[derive(Debug, Default)]
pub(crate) struct Matrix {
    /// In the order in which they were written.
    pub axes: Vec<(String, Vec<Value>)>,
    pub include: Vec<Values>,
    pub exclude: Vec<Values>,
}

/// One combination.
#[derive(Debug)]
pub(crate) struct Leg {
    /// What comes after the job's id: `linux/1`.
    pub name: String,
    pub coordinates: BTreeMap<String, Value>,
}

/// All combinations in order.
#[derive(Debug)]
pub(crate) struct Legs {
    pub legs: Vec<Leg>,
    /// Which of `exclude` fitted none.
    pub idle_excludes: Vec<usize>,
    /// Which of `exclude` have a key that is no axis, each with the first such key. They take nothing out.
    pub strange_excludes: Vec<(usize, String)>,
}

/// There are more combinations or comparisons than are taken.
#[derive(Debug, PartialEq)]
pub(crate) struct TooLarge;

/// The legs of a matrix.
pub(crate) fn legs(matrix: &Matrix) -> Result<Legs, TooLarge> {
    let product = matrix.axes.iter().try_fold(1_usize, |product, (_, values)| product.checked_mul(values.len()));
    let product = if matrix.axes.is_empty() { Some(0) } else { product };
    let product = product.filter(|&count| count <= COMBINATIONS_MAX).ok_or(TooLarge)?;
    let comparisons = product.saturating_mul(matrix.include.len() + matrix.exclude.len());
    if comparisons > COMPARISONS_MAX || matrix.include.len() > LEGS_MAX {
        return Err(TooLarge);
    }
    let mut combinations: Vec<Vec<&Value>> = (0..product).map(|index| combination(&matrix.axes, index)).collect();
    let strange_excludes: Vec<(usize, String)> = matrix
        .exclude
        .iter()
        .enumerate()
        .filter_map(|(index, values)| Some((index, stranger(matrix, values)?)))
        .collect();
    let mut used = vec![false; matrix.exclude.len()];
    strange_excludes.iter().for_each(|&(index, _)| used[index] = true);
    let whole = (0..matrix.exclude.len()).filter(|&index| !used[index]);
    let excludes: Vec<_> = whole.map(|index| (index, by_axis(&matrix.axes, &matrix.exclude[index]))).collect();
    combinations.retain(|combination| {
        let fitting: Vec<usize> =
            excludes.iter().filter(|(_, values)| fits(combination, values)).map(|&(index, _)| index).collect();
        fitting.iter().for_each(|&index| used[index] = true);
        fitting.is_empty()
    });
    let mut all: Vec<Values> = combinations.iter().map(|combination| named(&matrix.axes, combination)).collect();
    for include in &matrix.include {
        let own = by_axis(&matrix.axes, include);
        let mut fits_any = false;
        for (index, combination) in combinations.iter().enumerate() {
            if fits(combination, &own) {
                fits_any = true;
                include.iter().for_each(|(name, value)| set(&mut all[index], name, value));
            }
        }
        if !fits_any {
            all.push(include.clone());
        }
    }
    if all.len() > LEGS_MAX {
        return Err(TooLarge);
    }
    let legs = all.into_iter().map(|values| leg(&matrix.axes, values)).collect();
    let idle_excludes = (0..used.len()).filter(|&index| !used[index]).collect();
    Ok(Legs { legs, idle_excludes, strange_excludes })
}

/// The first name of these values that is no axis.
fn stranger(matrix: &Matrix, values: &Values) -> Option<String> {
    let is_axis = |name: &str| matrix.axes.iter().any(|(axis, _)| axis == name);
    values.iter().map(|(name, _)| name).find(|name| !is_axis(name)).cloned()
}

/// The combination of that number; the last axis changes first.
fn combination(axes: &[(String, Vec<Value>)], mut index: usize) -> Vec<&Value> {
    let mut values: Vec<&Value> = Vec::with_capacity(axes.len());
    for (_, axis) in axes.iter().rev() {
        values.push(&axis[index % axis.len()]);
        index /= axis.len();
    }
    values.reverse();
    values
}

/// The values that belong to axes, by the axis's place.
fn by_axis<'v>(axes: &[(String, Vec<Value>)], values: &'v Values) -> Vec<(usize, &'v Value)> {
    let place = |name: &str| axes.iter().position(|(axis, _)| axis == name);
    values.iter().filter_map(|(name, value)| Some((place(name)?, value))).collect()
}

fn fits(combination: &[&Value], values: &[(usize, &Value)]) -> bool {
    values.iter().all(|(place, value)| combination[*place] == *value)
}

fn named(axes: &[(String, Vec<Value>)], combination: &[&Value]) -> Values {
    axes.iter().zip(combination).map(|((name, _), value)| (name.clone(), (*value).clone())).collect()
}

fn set(values: &mut Values, name: &str, value: &Value) {
    match values.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => *known = value.clone(),
        None => values.push((name.to_owned(), value.clone())),
    }
}

/// The name is made of the axes' values; a leg that has none of them is named by all its values.
fn leg(axes: &[(String, Vec<Value>)], values: Values) -> Leg {
    let of_axes: Vec<&Value> = axes
        .iter()
        .filter_map(|(axis, _)| values.iter().find(|(name, _)| name == axis))
        .map(|(_, value)| value)
        .collect();
    let parts = if of_axes.is_empty() { values.iter().map(|(_, value)| value).collect() } else { of_axes };
    let name = parts.into_iter().map(name_part).collect::<Vec<_>>().join("/");
    Leg { name, coordinates: values.into_iter().collect() }
}

/// A value as part of a name: no slash, space or control character in it; never empty.
fn name_part(value: &Value) -> String {
    let text = match value {
        Value::Object(entries) => match entries.get("name") {
            Some(Value::String(name)) => name.clone(),
            _ => scalars(value).join(","),
        },
        _ => scalars(value).join(","),
    };
    let clean = |character: char| {
        if character == '/' || character.is_whitespace() || character.is_control() { '_' } else { character }
    };
    let name: String = text.chars().take(NAME_PART_CHARACTERS_MAX).map(clean).collect();
    if name.is_empty() { "_".to_owned() } else { name }
}

/// The scalars inside a value, in order; not more than fit a name.
fn scalars(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut ahead = vec![value];
    while let Some(value) = ahead.pop() {
        match value {
            Value::Array(items) => ahead.extend(items.iter().rev()),
            Value::Object(entries) => ahead.extend(entries.values().rev()),
            Value::String(text) => found.push(text.clone()),
            scalar => found.push(scalar.to_string()),
        }
        if found.len() > NAME_PART_CHARACTERS_MAX {
            break;
        }
    }
    found
}

/// The first name that two legs have.
pub(crate) fn repeated_name(legs: &[Leg]) -> Option<&str> {
    let mut seen = HashSet::with_capacity(legs.len());
    legs.iter().map(|leg| leg.name.as_str()).find(|name| !seen.insert(*name))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{LEGS_MAX, Matrix, TooLarge, Values, legs};

    fn values(value: &Value) -> Values {
        value.as_object().unwrap().iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    fn matrix(text: &Value) -> Matrix {
        let list = |name: &str| text[name].as_array().into_iter().flatten().map(values).collect();
        let axes = values(text).into_iter().filter(|(name, _)| name != "include" && name != "exclude");
        Matrix {
            axes: axes.map(|(name, axis)| (name, axis.as_array().unwrap().clone())).collect(),
            include: list("include"),
            exclude: list("exclude"),
        }
    }

    #[track_caller]
    fn check(text: Value, expected: &[(&str, Value)]) {
        let found = legs(&matrix(&text)).unwrap();
        let found: Vec<(&str, Value)> =
            found.legs.iter().map(|leg| (leg.name.as_str(), json!(leg.coordinates))).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn axes_in_order() {
        check(
            json!({"a": [1, 2], "b": ["x", "y"]}),
            &[
                ("1/x", json!({"a": 1, "b": "x"})),
                ("1/y", json!({"a": 1, "b": "y"})),
                ("2/x", json!({"a": 2, "b": "x"})),
                ("2/y", json!({"a": 2, "b": "y"})),
            ],
        );
    }

    /// The example of GitHub's manual.
    #[test]
    fn includes_as_github_has_them() {
        check(
            json!({
                "fruit": ["apple", "pear"], "animal": ["cat", "dog"],
                "include": [
                    {"color": "green"}, {"color": "pink", "animal": "cat"}, {"fruit": "apple", "shape": "circle"},
                    {"fruit": "banana"}, {"fruit": "banana", "animal": "cat"},
                ],
            }),
            &[
                ("cat/apple", json!({"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"})),
                ("cat/pear", json!({"fruit": "pear", "animal": "cat", "color": "pink"})),
                ("dog/apple", json!({"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"})),
                ("dog/pear", json!({"fruit": "pear", "animal": "dog", "color": "green"})),
                ("banana", json!({"fruit": "banana"})),
                ("cat/banana", json!({"fruit": "banana", "animal": "cat"})),
            ],
        );
    }

    #[test]
    fn excludes_by_a_part() {
        check(
            json!({"a": [1, 2], "b": [1, "1"], "exclude": [{"a": 1}, {"b": "1"}]}),
            &[("2/1", json!({"a": 2, "b": 1}))],
        );
        let idle = legs(&matrix(&json!({"a": [1], "exclude": [{"a": "1"}]}))).unwrap();
        assert_eq!(idle.idle_excludes, [0]);
    }

    #[test]
    fn excludes_by_no_axis_take_nothing() {
        let found = legs(&matrix(&json!({"a": [1, 2], "exclude": [{"a": 1, "b": 1}, {"a": 2}]}))).unwrap();
        assert_eq!(found.legs.iter().map(|leg| leg.name.as_str()).collect::<Vec<_>>(), ["1"]);
        assert_eq!((found.strange_excludes, found.idle_excludes), (vec![(0, "b".to_owned())], Vec::new()));
    }

    #[test]
    fn includes_alone() {
        check(
            json!({"include": [{"a": 1, "b": 2}, {"a": 1, "b": 3}]}),
            &[("1/2", json!({"a": 1, "b": 2})), ("1/3", json!({"a": 1, "b": 3}))],
        );
    }

    #[test]
    fn names_of_odd_values() {
        check(
            json!({"v": [{"name": "n", "x": 1}, {"x": 1, "y": [2]}, "a/b c", "", null, true]}),
            &[
                ("n", json!({"v": {"name": "n", "x": 1}})),
                ("1,2", json!({"v": {"x": 1, "y": [2]}})),
                ("a_b_c", json!({"v": "a/b c"})),
                ("_", json!({"v": ""})),
                ("null", json!({"v": null})),
                ("true", json!({"v": true})),
            ],
        );
    }

    #[test]
    fn bounded() {
        let axis = |count: usize| (0..count).map(Value::from).collect::<Vec<_>>();
        let of = |axes: Vec<(&str, Vec<Value>)>| Matrix {
            axes: axes.into_iter().map(|(name, values)| (name.to_owned(), values)).collect(),
            ..Matrix::default()
        };
        assert_eq!(legs(&of(vec![("a", axis(LEGS_MAX))])).unwrap().legs.len(), LEGS_MAX);
        assert_eq!(legs(&of(vec![("a", axis(LEGS_MAX + 1))])).err(), Some(TooLarge));
        let huge: Vec<_> =
            ["a", "b", "c", "d", "e", "f", "g", "h"].into_iter().map(|name| (name, axis(60_000))).collect();
        assert_eq!(legs(&of(huge)).err(), Some(TooLarge));
        assert!(legs(&of(vec![("a", axis(5)), ("b", Vec::new())])).unwrap().legs.is_empty());
    }
}
