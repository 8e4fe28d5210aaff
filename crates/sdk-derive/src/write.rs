//! Writes the implementation as text, in which types of the user stand as `__KIND_0`, `__KIND_1`, …, and puts their own tokens there.

use std::fmt::Write;

use proc_macro::{Group, TokenStream, TokenTree};

use crate::read::{Body, Fields, Item, Named, ParameterKind, Variant};

/// The implementation of `Data`.
pub(crate) fn implementation(item: &Item) -> TokenStream {
    let mut writing = Writing { kinds: Vec::new() };
    let (constants, schema, to_json, from_json, visit) = match &item.body {
        Body::Struct(fields) => writing.of_struct(fields),
        Body::Enum(variants) => writing.of_enum(variants),
    };
    let fill = writing.fill(item);
    let head = writing.head(item, DATA, "");
    let text = format!(
        "{fill} #[automatically_derived] {head} {{
            {constants}
            fn schema(schema: &mut ::ropewalk::data::Schema) {{
                schema.named(::core::any::type_name::<Self>(), |schema| {{ {schema} }});
            }}
            fn to_json(&self) -> ::ropewalk::Json {{ {to_json} }}
            fn from_json(json: &::ropewalk::Json) -> ::core::result::Result<Self, ::ropewalk::data::DecodeError> {{
                {from_json}
            }}
            fn visit_files(&mut self, visit: &mut dyn ::core::ops::FnMut(&mut ::std::string::String)) {{
                let _ = &visit;
                {visit}
            }}
        }}"
    );
    let tokens: TokenStream = text.parse().expect("the implementation is Rust");
    writing.with_kinds(tokens)
}

/// What the bodies are: constants, `schema`, `to_json`, `from_json`, `visit_files`.
type Bodies = (String, String, String, String, String);

struct Writing {
    /// Tokens of the user, by their number in the text.
    kinds: Vec<Vec<TokenTree>>,
}

const DATA: &str = "::ropewalk::Data";
const FILL: &str = "::ropewalk::Fill";

impl Writing {
    /// The place of these tokens in the text.
    fn kind(&mut self, tokens: &[TokenTree]) -> String {
        self.kinds.push(tokens.to_vec());
        format!("__KIND_{}", self.kinds.len() - 1)
    }

    /// The implementation of `Fill`, of what may be filled in: a choice, or a tuple struct around what may.
    fn fill(&mut self, item: &Item) -> String {
        let (bound, field) = match &item.body {
            Body::Struct(Fields::Unnamed(kinds)) if kinds.len() == 1 => {
                let kind = self.kind(&kinds[0]);
                // Bound over a lifetime, or the compiler refuses a bound that does not hold instead of passing over it.
                (format!("for<'__fill> {kind}: {FILL}, "), format!("<{kind} as {FILL}>::FIELD"))
            }
            Body::Enum(variants) if is_choice(variants) => {
                (String::new(), format!("::ropewalk::FieldType::Choice(&[{}])", words_of(variants)))
            }
            _ => return String::new(),
        };
        let head = self.head(item, FILL, &bound);
        format!("#[automatically_derived] {head} {{ const FIELD: ::ropewalk::FieldType = {field}; }}")
    }

    /// How an implementation of this trait begins, with a bound of its own: empty, or with a comma behind it.
    fn head(&mut self, item: &Item, of: &str, bound: &str) -> String {
        let mut declared = String::new();
        let mut names = String::new();
        let mut bounds = String::new();
        for parameter in &item.parameters {
            let _ = write!(declared, "{}, ", self.kind(&parameter.declaration));
            let _ = write!(names, "{}, ", parameter.name);
            if parameter.kind == ParameterKind::Type {
                let _ = write!(bounds, "{}: {DATA}, ", parameter.name);
            }
        }
        bounds.push_str(bound);
        if !item.bounds.is_empty() {
            bounds.push_str(&self.kind(&item.bounds));
        }
        format!("impl<{declared}> {of} for {}<{names}> where {bounds}", item.name)
    }

    fn of_struct(&mut self, fields: &Fields) -> Bodies {
        match fields {
            Fields::Unit => (
                String::new(),
                "schema.word(\"unit\");".to_owned(),
                "::ropewalk::Json::Null".to_owned(),
                "let _ = json; Ok(Self)".to_owned(),
                String::new(),
            ),
            Fields::Unnamed(kinds) if kinds.len() == 1 => {
                let kind = self.kind(&kinds[0]);
                (
                    String::new(),
                    format!("<{kind} as {DATA}>::schema(schema);"),
                    format!("<{kind} as {DATA}>::to_json(&self.0)"),
                    format!("<{kind} as {DATA}>::from_json(json).map(Self)"),
                    format!("<{kind} as {DATA}>::visit_files(&mut self.0, visit);"),
                )
            }
            Fields::Unnamed(kinds) => {
                let names: Vec<String> = (0..kinds.len()).map(|index| format!("field_{index}")).collect();
                let pattern = format!("let Self({}) = self;", names.join(", "));
                (
                    String::new(),
                    self.schema(fields),
                    format!("{pattern} {}", self.json_of(fields)),
                    self.reading_of(fields, "Self"),
                    format!("{pattern} {}", self.visit(fields)),
                )
            }
            Fields::Named(named) => {
                let pattern = format!("let Self {{ {} }} = self;", bindings(named));
                let words: Vec<String> = named.iter().map(quoted_word).collect();
                (
                    format!("const PARTS: &'static [&'static str] = &[{}];", words.join(", ")),
                    self.schema(fields),
                    format!("{pattern} {}", self.json_of(fields)),
                    self.reading_of(fields, "Self"),
                    format!("{pattern} {}", self.visit(fields)),
                )
            }
        }
    }

    fn of_enum(&mut self, variants: &[Variant]) -> Bodies {
        let words = words_of(variants);
        let mut schema = "schema.word(\"<\");".to_owned();
        let (mut to_json, mut plain, mut filled, mut visit) = Default::default();
        for variant in variants {
            self.variant(variant, [&mut schema, &mut to_json, &mut plain, &mut filled, &mut visit]);
        }
        schema.push_str("schema.word(\">\");");
        let from_json = format!(
            "match json {{
                ::ropewalk::Json::Text(word) => match word.as_str() {{ {plain} _ => {{}} }},
                ::ropewalk::Json::Object(entries) => if let [(word, json)] = entries.as_slice() {{
                    let _ = json;
                    match word.as_str() {{ {filled} _ => {{}} }}
                }},
                _ => {{}}
            }}
            ::core::result::Result::Err(::ropewalk::data::DecodeError::variant(&[{words}], json))"
        );
        (String::new(), schema, format!("match *self {{ {to_json} }}"), from_json, format!("match *self {{ {visit} }}"))
    }

    /// Appends what a variant adds to `schema`, `to_json`, the two halves of `from_json`, and `visit_files`.
    fn variant(&mut self, variant: &Variant, out: [&mut String; 5]) {
        let [schema, to_json, plain, filled, visit] = out;
        let Variant { name, word, fields } = variant;
        let word = quoted(word);
        let (pattern, mutable) = match fields {
            Fields::Unit => {
                let _ = write!(schema, "schema.word({word}); schema.word(\",\");");
                let _ = write!(to_json, "Self::{name} => ::ropewalk::Json::from({word}),");
                let _ = write!(plain, "{word} => return ::core::result::Result::Ok(Self::{name}),");
                let _ = write!(visit, "Self::{name} => {{}}");
                return;
            }
            Fields::Unnamed(kinds) => {
                let names =
                    |by: &str| (0..kinds.len()).map(|index| format!("{by} field_{index}, ")).collect::<String>();
                (format!("Self::{name}({})", names("ref")), format!("Self::{name}({})", names("ref mut")))
            }
            Fields::Named(named) => {
                let names = |by: &str| {
                    let fields = named.iter().enumerate();
                    fields.map(|(index, field)| format!("{}: {by} field_{index}, ", field.name)).collect::<String>()
                };
                (format!("Self::{name} {{ {} }}", names("ref")), format!("Self::{name} {{ {} }}", names("ref mut")))
            }
        };
        let _ = write!(schema, "schema.word({word}); {} schema.word(\",\");", self.schema(fields));
        let inner = self.json_of(fields);
        let _ = write!(to_json, "{pattern} => ::ropewalk::Json::object([({word}, {{ {inner} }})]),");
        let read = self.reading_of(fields, &format!("Self::{name}"));
        let _ = write!(
            filled,
            "{word} => {{
                let read = || -> ::core::result::Result<Self, ::ropewalk::data::DecodeError> {{ {read} }};
                return read().map_err(|error| error.in_field({word}));
            }}"
        );
        let _ = write!(visit, "{mutable} => {{ {} }}", self.visit(fields));
    }

    /// Statements that write the shape of fields.
    fn schema(&mut self, fields: &Fields) -> String {
        let mut text = String::new();
        match fields {
            Fields::Unit => {}
            Fields::Unnamed(kinds) => {
                text.push_str("schema.word(\"(\");");
                for kind in kinds {
                    let kind = self.kind(kind);
                    let _ = write!(text, "<{kind} as {DATA}>::schema(schema); schema.word(\",\");");
                }
                text.push_str("schema.word(\")\");");
            }
            Fields::Named(named) => {
                text.push_str("schema.word(\"{\");");
                for field in named {
                    let kind = self.kind(&field.kind);
                    let word = quoted_word(field);
                    let _ = write!(text, "schema.field({word}, |schema| <{kind} as {DATA}>::schema(schema));");
                }
                text.push_str("schema.word(\"}\");");
            }
        }
        text
    }

    /// An expression of the JSON of fields that are bound as `field_0`, `field_1`, …
    fn json_of(&mut self, fields: &Fields) -> String {
        match fields {
            Fields::Unit => "::ropewalk::Json::Null".to_owned(),
            Fields::Unnamed(kinds) if kinds.len() == 1 => format!("{DATA}::to_json(field_0)"),
            Fields::Unnamed(kinds) => {
                let items = (0..kinds.len()).map(|index| format!("{DATA}::to_json(field_{index}), "));
                format!("::ropewalk::Json::List(::std::vec![{}])", items.collect::<String>())
            }
            Fields::Named(named) => {
                let entries = named
                    .iter()
                    .enumerate()
                    .map(|(index, field)| format!("({}, {DATA}::to_json(field_{index})), ", quoted_word(field)));
                format!("::ropewalk::Json::object([{}])", entries.collect::<String>())
            }
        }
    }

    /// An expression that reads the fields out of `json` and puts `constructor` around them.
    fn reading_of(&mut self, fields: &Fields, constructor: &str) -> String {
        match fields {
            Fields::Unit => format!("::core::result::Result::Ok({constructor})"),
            Fields::Unnamed(kinds) if kinds.len() == 1 => {
                let kind = self.kind(&kinds[0]);
                format!("<{kind} as {DATA}>::from_json(json).map({constructor})")
            }
            Fields::Unnamed(kinds) => {
                let count = kinds.len();
                let items = kinds
                    .iter()
                    .enumerate()
                    .map(|(index, kind)| format!("::ropewalk::data::item::<{}>(items, {index})?, ", self.kind(kind)));
                let items = items.collect::<String>();
                format!(
                    "let items = ::ropewalk::data::items(json, {count})?; let _ = items;
                    ::core::result::Result::Ok({constructor}({items}))"
                )
            }
            Fields::Named(named) => {
                let entries = named.iter().map(|field| {
                    let kind = self.kind(&field.kind);
                    format!("{}: ::ropewalk::data::field::<{kind}>(json, {})?, ", field.name, quoted_word(field))
                });
                let entries = entries.collect::<String>();
                format!(
                    "::ropewalk::data::object(json)?;
                    ::core::result::Result::Ok({constructor} {{ {entries} }})"
                )
            }
        }
    }

    /// Statements that visit the files in fields that are bound as `field_0`, `field_1`, …
    fn visit(&mut self, fields: &Fields) -> String {
        let count = match fields {
            Fields::Unit => 0,
            Fields::Unnamed(kinds) => kinds.len(),
            Fields::Named(named) => named.len(),
        };
        (0..count).map(|index| format!("{DATA}::visit_files(field_{index}, visit);")).collect()
    }

    /// Puts the user's tokens at their places.
    fn with_kinds(&self, tokens: TokenStream) -> TokenStream {
        let replace = |token: TokenTree| -> TokenStream {
            match token {
                TokenTree::Group(group) => {
                    let mut replaced = Group::new(group.delimiter(), self.with_kinds(group.stream()));
                    replaced.set_span(group.span());
                    TokenTree::from(replaced).into()
                }
                TokenTree::Ident(name) => match name.to_string().strip_prefix("__KIND_").map(str::parse::<usize>) {
                    Some(Ok(number)) => self.kinds[number].iter().cloned().collect(),
                    _ => TokenTree::from(name).into(),
                },
                token => token.into(),
            }
        };
        tokens.into_iter().flat_map(replace).collect()
    }
}

/// Whether a value is one of some words.
fn is_choice(variants: &[Variant]) -> bool {
    !variants.is_empty() && variants.iter().all(|variant| matches!(variant.fields, Fields::Unit))
}

/// The words of variants in JSON, as strings of Rust.
fn words_of(variants: &[Variant]) -> String {
    variants.iter().map(|variant| quoted(&variant.word)).collect::<Vec<_>>().join(", ")
}

/// `a: field_0, b: field_1`
fn bindings(named: &[Named]) -> String {
    named.iter().enumerate().map(|(index, field)| format!("{}: field_{index}, ", field.name)).collect()
}

fn quoted_word(field: &Named) -> String {
    quoted(&field.word)
}

/// As a string of Rust.
fn quoted(text: &str) -> String {
    format!("{text:?}")
}
