//! `ropewalk config`: every setting of a server, with its value and where that came from.

use server::settings::{KEYS, Loaded, Reload, Source};

use super::Stop;
use crate::args::{Colour, Config, ConfigForm};
use crate::columns::{Cell, Columns, Paint, Style};
use crate::{exit, output};

/// Runs the command.
///
/// # Errors
/// If the settings are wrong.
pub fn run(arguments: &Config, colour: Colour) -> Result<u8, Stop> {
    let loaded = arguments.installation.settings(&[], colour)?;
    let text = match arguments.output {
        ConfigForm::Human => human(&loaded, Paint::of(colour, &std::io::stdout())),
        ConfigForm::Toml => toml(&loaded),
        ConfigForm::Json => json(&loaded),
    };
    output::print(text)?;
    Ok(exit::PASSED)
}

fn human(loaded: &Loaded, paint: Paint) -> String {
    let mut columns = Columns::default();
    columns.titles(["setting", "value", "from", "what it is for"]);
    for key in KEYS {
        let source = loaded.sources[key.name];
        let value = key.value(&loaded.settings);
        let style = if source == Source::Default { Style::Dim } else { Style::Strong };
        columns.row([
            Cell::new(key.name),
            Cell::new(if value.is_empty() { "-" } else { &value }).style(style),
            Cell::new(source.name()).style(Style::Dim),
            Cell::new(key.about),
        ]);
    }
    columns.text(paint, 0)
}

/// A file of settings: what was said stands, what was not stands as a comment.
fn toml(loaded: &Loaded) -> String {
    let mut text = String::new();
    let mut section = "";
    for key in KEYS {
        let (of, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if of != section {
            text.push_str(&format!("{}[{of}]\n", if text.is_empty() { "" } else { "\n" }));
            section = of;
        }
        let value = key.value(&loaded.settings);
        let shown = serde_json::Value::from(value).to_string();
        let mark = if loaded.sources[key.name] == Source::Default { "# " } else { "" };
        let when = if key.reload == Reload::Start { "; counts from the next start" } else { "" };
        text.push_str(&format!("# {} ({}{when})\n{mark}{name} = {shown}\n", key.about, key.takes));
    }
    text
}

fn json(loaded: &Loaded) -> String {
    let keys = KEYS.iter().map(|key| {
        let value = serde_json::json!({
            "value": key.value(&loaded.settings),
            "source": loaded.sources[key.name].name(),
            "default": key.default,
            "takes": key.takes,
            "about": key.about,
            "variable": key.variable(),
            "live": key.reload == Reload::Live,
        });
        (key.name.to_owned(), value)
    });
    format!("{:#}\n", serde_json::Value::Object(keys.collect()))
}
