//! The law of `#[derive(Data)]`: what was written is read back, for every form that a type can have.

use std::collections::BTreeMap;
use std::fmt::Debug;

use ropewalk::data::Schema;
use ropewalk::{Data, Dir, FieldType, File, Fill, Json};

/// Writes the value, expects this JSON and this schema, and reads it back, also through text.
fn check<T: Data + PartialEq + Debug>(value: T, schema: &str, json: &str) {
    let written = value.to_json();
    assert_eq!(written.to_string(), json);
    assert_eq!(Schema::of::<T>().text(), schema);
    assert_eq!(T::from_json(&written).as_ref(), Ok(&value));
    assert_eq!(T::from_json(&Json::read(json).unwrap()).as_ref(), Ok(&value));
}

fn refused<T: Data + Debug>(json: &str) -> String {
    T::from_json(&Json::read(json).unwrap()).unwrap_err().to_string()
}

#[derive(Data, Debug, PartialEq, Clone)]
struct Version {
    major: u32,
    pub(crate) minor: u32,
    r#type: Option<String>,
}

#[derive(Data, Debug, PartialEq)]
struct Name(String);

#[derive(Data, Debug, PartialEq)]
struct Pair(#[allow(dead_code, reason = "attributes are passed over")] u8, pub Vec<bool>);

#[derive(Data, Debug, PartialEq)]
struct Nothing;

#[derive(Data, Debug, PartialEq)]
struct Empty {}

#[derive(Data, Debug, PartialEq, Clone, Copy)]
enum Region {
    #[data("eu")]
    Europe,
    Us,
    #[data("ap-south")]
    Asia = 7,
}

#[derive(Data, Debug, PartialEq)]
enum Shape {
    Dot,
    Circle(f64),
    Line(i64, i64),
    Rectangle { width: u8, height: u8 },
    Nested(Box<Shape>),
}

#[derive(Data, Debug, PartialEq)]
struct Tree<T: Clone = String, const N: usize = 2>
where
    T: Debug,
{
    value: T,
    children: Vec<Tree<T, N>>,
    map: BTreeMap<String, Option<T>>,
}

#[derive(Data, Debug, PartialEq, Default)]
struct Files {
    binary: File,
    docs: Option<Dir>,
    reports: Vec<(File,)>,
}

#[test]
fn structs() {
    check(
        Version { major: 1, minor: 2, r#type: None },
        "{major:u32,minor:u32,type:?text,}",
        r#"{"major":1,"minor":2,"type":null}"#,
    );
    check(Name("x".to_owned()), "text", r#""x""#);
    check(Pair(1, vec![true, false]), "(u8,[bool],)", "[1,[true,false]]");
    check(Nothing, "unit", "null");
    check(Empty {}, "{}", "{}");
}

#[test]
fn enums() {
    check(Region::Europe, "<eu,Us,ap-south,>", r#""eu""#);
    check(Region::Asia, "<eu,Us,ap-south,>", r#""ap-south""#);
    let schema = "<Dot,Circle(f64,),Line(i64,i64,),Rectangle{width:u8,height:u8,},Nested(&derive::Shape,),>";
    check(Shape::Dot, schema, r#""Dot""#);
    check(Shape::Circle(0.5), schema, r#"{"Circle":0.5}"#);
    check(Shape::Line(-1, 2), schema, r#"{"Line":[-1,2]}"#);
    check(Shape::Rectangle { width: 1, height: 2 }, schema, r#"{"Rectangle":{"width":1,"height":2}}"#);
    check(Shape::Nested(Box::new(Shape::Dot)), schema, r#"{"Nested":"Dot"}"#);
}

#[test]
fn parameters_and_types_inside_themselves() {
    let leaf = Tree::<_, 2> { value: 1_u8, children: Vec::new(), map: [("a".to_owned(), None)].into() };
    let tree = Tree { value: 2, children: vec![leaf], map: BTreeMap::new() };
    check(
        tree,
        "{value:u8,children:[&derive::Tree<u8>],map:{*:?u8},}",
        r#"{"value":2,"children":[{"value":1,"children":[],"map":{"a":null}}],"map":{}}"#,
    );
}

#[test]
fn errors_say_where() {
    assert_eq!(refused::<Version>("3"), "an object was expected, a number came");
    assert_eq!(refused::<Version>(r#"{"major":1}"#), ".minor: a whole number (u32) was expected, null came");
    assert_eq!(refused::<Pair>("[1]"), "2 items were expected, 1 came");
    assert_eq!(refused::<Pair>("[1,[2]]"), "[1][0]: a boolean was expected, a number came");
    assert_eq!(refused::<Region>(r#""mars""#), "one of `eu`, `Us`, `ap-south` was expected, `mars` came");
    assert_eq!(refused::<Shape>(r#"{"Line":[1,"x"]}"#), ".Line[1]: a whole number (i64) was expected, a string came");
    assert_eq!(refused::<Shape>(r#"{"Dot":1,"Line":2}"#).split(" was").last(), Some(" expected, `Dot` came"));
}

#[test]
fn what_a_person_may_fill_in() {
    assert_eq!(Region::FIELD, FieldType::Choice(&["eu", "Us", "ap-south"]));
    assert_eq!(Name::FIELD, FieldType::Text);
    assert_eq!(u8::FIELD, FieldType::Number);
    assert_eq!(Version::PARTS, ["major", "minor", "type"]);
}

#[test]
fn files_are_found_everywhere() {
    let mut files = Files { binary: File::new("a"), docs: Some(Dir::new("b")), reports: vec![(File::new("c"),)] };
    let mut seen = Vec::new();
    files.visit_files(&mut |path| {
        seen.push(path.clone());
        path.insert_str(0, "moved/");
    });
    assert_eq!(seen, ["a", "b", "c"]);
    assert_eq!(files.to_json().to_string(), r#"{"binary":"moved/a","docs":"moved/b","reports":[["moved/c"]]}"#);
    assert!(Schema::of::<Files>().holds_files());
    assert!(!Schema::of::<Version>().holds_files());
}

/// JSON has no NaN and no infinity: who returns one fails, rather than who takes it.
#[test]
fn what_is_no_number_is_not_handed_on() {
    use ropewalk::Ci;
    use ropewalk::testing::{Recorded, push, run_fn};
    let told = |rates: [f64; 2]| {
        let pipeline = move |ci: &Ci| {
            ci.job("rates").run_fn(move |_, ()| Ok(BTreeMap::from([("of".to_owned(), rates.to_vec())])));
        };
        let returned = run_fn::<BTreeMap<String, Vec<f64>>>(pipeline, push("main"), "rates", &Recorded::new());
        returned.err().map(|failure| failure.message().to_owned())
    };
    assert_eq!(told([0.0, f64::MIN]), None);
    assert!(told([0.5, f64::NAN]).unwrap().contains("cannot be handed on: .of[1] is NaN, which no JSON number is"));
    assert!(told([f64::NEG_INFINITY, 0.0]).unwrap().contains("cannot be handed on: .of[0] is -inf"));
}
