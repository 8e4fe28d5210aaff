//! Values that come back, values that JSON would change, and shapes that tell builds apart.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::Serde;
use crate::data::{Data, Schema};
use crate::json::Json;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct All {
    flag: bool,
    largest: u64,
    smallest: i64,
    beyond: i128,
    ratio: f32,
    exact: f64,
    letter: char,
    text: String,
    unit: (),
    none: Option<u8>,
    some: Option<Vec<u8>>,
    pair: (u8, String),
    by_number: BTreeMap<NonZeroU32, Kind>,
    by_kind: BTreeMap<Word, bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<u8>,
    boxed: Box<Node>,
    #[serde(flatten)]
    more: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Word {
    Left,
    Right,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Unit,
    New(u64),
    Two(u8, Option<i8>),
    Named { a: String, b: Word },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Either {
    Number(u64),
    Text(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Node {
    kinds: Vec<Kind>,
    either: Vec<Either>,
    left: Option<Box<Node>>,
    children: Vec<Node>,
}

fn node() -> Node {
    let named = Kind::Named { a: "x\n".to_owned(), b: Word::Right };
    Node {
        kinds: vec![Kind::Unit, Kind::New(u64::MAX), Kind::Two(1, None), Kind::Two(2, Some(-3)), named],
        either: vec![Either::Number(u64::MAX), Either::Text("18446744073709551615".to_owned())],
        left: None,
        children: Vec::new(),
    }
}

#[track_caller]
fn check<T: Serialize + for<'de> Deserialize<'de> + Debug + PartialEq + 'static>(value: T) {
    let json = Serde(value).to_json();
    assert_eq!(json.unsayable(), None);
    let text = json.to_string();
    let read = Json::read(&text).expect("it is JSON");
    let Serde(back) = Serde::<T>::from_json(&read).unwrap_or_else(|error| panic!("{error} in {text}"));
    assert_eq!(Serde(back).to_json().to_string(), text);
    assert_eq!(text, serde_json::to_string(&Serde::<T>::from_json(&read).unwrap().0).unwrap());
}

#[test]
fn values_come_back_as_they_were() {
    let tree = Node { left: Some(Box::new(node())), children: vec![node(), node()], ..node() };
    let value = All {
        flag: true,
        largest: u64::MAX,
        smallest: i64::MIN,
        beyond: i128::from(u64::MAX) + 1,
        ratio: 0.5,
        exact: -0.1,
        letter: 'ß',
        text: "\"\u{1}".to_owned(),
        unit: (),
        none: None,
        some: Some(vec![1, 2]),
        pair: (3, String::new()),
        by_number: BTreeMap::from([(NonZeroU32::MIN, Kind::Unit), (NonZeroU32::MAX, Kind::New(2))]),
        by_kind: BTreeMap::from([(Word::Left, true), (Word::Right, false)]),
        left_out: Vec::new(),
        boxed: Box::new(tree),
        more: BTreeMap::from([("extra".to_owned(), u64::MAX)]),
    };
    let json = Serde(value.clone()).to_json().to_string();
    let Serde(back) = Serde::<All>::from_json(&Json::read(&json).expect("it is JSON")).expect("it reads");
    assert_eq!(back, value);
    assert_eq!(json, serde_json::to_string(&value).expect("serde_json writes it"));
    check(node());
    check(Kind::Unit);
    check(u64::MAX);
    check(std::time::Duration::from_millis(1500));
}

#[track_caller]
fn is_unsayable<T: Serialize + for<'de> Deserialize<'de> + 'static>(value: T, place: &str, what: &str) {
    let (path, why) = Serde(value).to_json().unsayable().expect("JSON cannot say it");
    assert!(why.contains(what), "{path}: {why}");
    // Infinity and NaN are found where they stand; of all else the text says where.
    assert!(path == place || why.starts_with(place), "{path}: {why}");
}

#[test]
fn what_json_would_lose_is_told() {
    is_unsayable(vec![1.0, f64::NAN], "[1]", "NaN, which no JSON number is");
    is_unsayable(vec![Some(f32::INFINITY)], "[0]", "inf, which no JSON number is");
    is_unsayable(vec![None, Some(())], "[1]", "a `Some` of what is `null` in JSON");
    is_unsayable(Some(None::<u8>), "", "a `Some` of what is `null` in JSON");
    is_unsayable(HashMap::from([((1, 2), 3)]), "", "keys are neither texts nor whole numbers");
    is_unsayable(u128::MAX, "", "more than the largest i128");
}

#[test]
fn errors_say_where() {
    let told = |text: &str| {
        let read = Serde::<Node>::from_json(&Json::read(text).expect("it is JSON"));
        read.expect_err("it has another shape").to_string()
    };
    let rest = r#""either":[],"left":null,"children":[]}"#;
    assert_eq!(told("[]"), "invalid length 0, expected struct Node with 4 elements");
    assert_eq!(
        told(&format!(r#"{{"kinds":["Unit",{{"New":"x"}}],{rest}"#)),
        ".kinds[1].New: invalid type: string \"x\", expected u64"
    );
    assert_eq!(told(&format!(r#"{{"kinds":[7],{rest}"#)).split(',').next(), Some(".kinds[0]: one of `Unit`"));
}

/// Types of one name, as two builds of a program may have them.
macro_rules! digests {
    ($($item:item)*) => {
        [$({
            #[derive(Serialize, Deserialize)]
            #[allow(dead_code, reason = "only its shape is looked at")]
            $item
            Schema::of::<Serde<Build>>().text().replace(std::any::type_name::<Build>(), "Build")
        }),*]
    };
}

#[test]
fn another_shape_has_another_schema() {
    let texts = digests! {
        struct Build { a: u32 }
        struct Build { b: u32 }
        struct Build { a: u64 }
        struct Build { a: Option<u32> }
        struct Build { a: Vec<u32> }
        struct Build { a: u32, b: u32 }
        struct Build { b: u32, a: u32 }
        struct Build { a: std::num::NonZeroU32, b: String }
        struct Build(u32);
        struct Build(u32, u32);
        struct Build(BTreeMap<u32, String>);
        enum Build { A, B }
        enum Build { B, A }
        enum Build { A, B(u8) }
        enum Build { A, B { x: u8 } }
        enum Build { A(Vec<Build>), B { x: Option<Box<Build>> } }
        enum Build { A(Vec<Build>), B { x: Option<Box<Build>>, y: u8 } }
        struct Build { a: std::net::IpAddr, b: u32 }
        struct Build { a: std::net::IpAddr, c: u32 }
    };
    for (index, text) in texts.iter().enumerate() {
        assert!(!texts[..index].contains(text), "{text}");
    }
}

#[test]
fn types_that_hold_themselves_have_a_schema() {
    let text = Schema::of::<Serde<Node>>().text().to_owned();
    assert!(text.contains("Unit,New,Two,Named") && text.contains("<Left,Right>"), "{text}");
    assert_eq!(Schema::of::<Serde<Node>>().text(), text);
    // What asks for anything at all shows nothing, and a value that refuses what it is shown ends the look.
    assert!(Schema::of::<Serde<serde_json::Value>>().text().ends_with("any,"));
}
