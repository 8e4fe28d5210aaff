//! The legs of a matrix as one needed job: what `needs.ID` is where several legs stand behind the id.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::attempt::NeedResult;
use crate::name::JobName;

/// Adds, for every id of which `needs` holds legs, what the legs are together, under the id.
///
/// The result is the worst of the legs: `failed`, else `canceled`, else `skipped`, else `passed`. An output is the value
/// of the last leg, by `order_of`, that gave it a value other than the empty text and null; so it does not depend on which
/// leg ended last (GitHub: "the last successful completing" leg). Artifacts stay with their legs. Adding twice changes
/// nothing.
pub fn join(needs: &mut BTreeMap<JobName, NeedResult>, order_of: impl Fn(&JobName) -> u32) {
    let mut legs: Vec<(u32, &JobName)> =
        needs.keys().filter(|name| name.leg().is_some()).map(|name| (order_of(name), name)).collect();
    legs.sort_unstable();
    let mut joined: BTreeMap<JobName, NeedResult> = BTreeMap::new();
    for (_, name) in legs {
        let leg = &needs[name];
        let all = joined.entry(JobName::from(name.id())).or_insert_with(|| NeedResult {
            result: leg.result.clone(),
            outputs: BTreeMap::new(),
            artifacts: BTreeMap::new(),
        });
        if weight(&leg.result) > weight(&all.result) {
            all.result.clone_from(&leg.result);
        }
        for (output, value) in &leg.outputs {
            if !is_empty(value) || !all.outputs.contains_key(output) {
                all.outputs.insert(output.clone(), value.clone());
            }
        }
    }
    needs.extend(joined);
}

/// The context `needs`: by name `result` and `outputs`; for an id that stands for legs also `legs`, by what follows the
/// id in their names.
#[must_use]
pub fn context(needs: &BTreeMap<JobName, NeedResult>) -> Value {
    let shown = |need: &NeedResult| json!({ "result": need.result, "outputs": need.outputs });
    let mut context: BTreeMap<&str, Value> = needs.iter().map(|(name, need)| (name.as_str(), shown(need))).collect();
    for (name, need) in needs {
        let Some(leg) = name.leg() else { continue };
        if let Some(Value::Object(all)) = context.get_mut(name.id())
            && let Value::Object(legs) = all.entry("legs").or_insert_with(|| Value::Object(Map::new()))
        {
            legs.insert(leg.to_owned(), shown(need));
        }
    }
    context.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into()
}

fn weight(result: &str) -> u8 {
    match result {
        "failed" => 3,
        "canceled" => 2,
        "skipped" => 1,
        _ => 0,
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::{context, join};
    use crate::attempt::NeedResult;
    use crate::name::JobName;

    /// Legs in the order of the matrix, each `name, result, value of the output x`.
    #[track_caller]
    fn check(legs: &[(&str, &str, Option<&str>)], expected: Value) {
        let need = |result: &str, x: Option<&str>| NeedResult {
            result: result.to_owned(),
            outputs: x.map(|x| ("x".to_owned(), json!(x))).into_iter().collect(),
            artifacts: BTreeMap::new(),
        };
        let mut needs: BTreeMap<JobName, NeedResult> =
            legs.iter().map(|&(name, result, x)| (JobName::from(name), need(result, x))).collect();
        let order_of = |name: &JobName| legs.iter().position(|leg| leg.0 == name.as_str()).unwrap() as u32;
        join(&mut needs, order_of);
        let once = needs.clone();
        join(&mut needs, order_of);
        assert_eq!(needs, once, "joining twice changes nothing");
        let context = context(&needs);
        assert_eq!(json!({ "result": context["m"]["result"], "x": context["m"]["outputs"]["x"] }), expected);
    }

    #[test]
    fn the_last_leg_in_the_order_of_the_matrix_that_says_something_decides() {
        check(
            &[("m/10", "passed", Some("first")), ("m/9", "passed", Some("second"))],
            json!({ "result": "passed", "x": "second" }),
        );
        check(
            &[("m/1", "passed", Some("first")), ("m/2", "passed", Some("")), ("m/3", "passed", None)],
            json!({ "result": "passed", "x": "first" }),
        );
        check(&[("m/1", "passed", Some(""))], json!({ "result": "passed", "x": "" }));
    }

    #[test]
    fn the_worst_result_decides() {
        check(&[("m/1", "passed", None), ("m/2", "skipped", None)], json!({ "result": "skipped", "x": null }));
        check(&[("m/1", "canceled", None), ("m/2", "skipped", None)], json!({ "result": "canceled", "x": null }));
        check(
            &[("m/1", "failed", None), ("m/2", "canceled", None), ("m/3", "passed", Some("1"))],
            json!({ "result": "failed", "x": "1" }),
        );
    }

    #[test]
    fn each_leg_is_found_under_its_id_and_by_its_full_name() {
        let need = |x: u32| NeedResult {
            result: "passed".to_owned(),
            outputs: BTreeMap::from([("x".to_owned(), json!(x))]),
            artifacts: BTreeMap::new(),
        };
        let mut needs = BTreeMap::from([(JobName::from("m/linux/1"), need(1)), (JobName::from("a"), need(2))]);
        join(&mut needs, |_| 0);
        let leg = json!({ "result": "passed", "outputs": { "x": 1 } });
        assert_eq!(
            context(&needs),
            json!({
                "a": { "result": "passed", "outputs": { "x": 2 } },
                "m": { "result": "passed", "outputs": { "x": 1 }, "legs": { "linux/1": leg } },
                "m/linux/1": leg,
            })
        );
    }
}
