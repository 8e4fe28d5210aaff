//! The groups of a log as a tree of links beside it: what is in a group stands in a list below it.

use api::log::{LogGroup, LogGroups};
use api::problem::Problem;
use maud::{Markup, html};

use crate::{Source, paths, read, words};

/// A log of more lines tells its groups after the page is there.
pub const LINES_AT_ONCE: u64 = 50_000;

fn fold_word(group: &LogGroup) -> &'static str {
    match group.fold {
        api::log::GroupFold::Closed => "closed",
        api::log::GroupFold::Open => "open",
        api::log::GroupFold::Quiet => "quiet",
    }
}

/// The groups of a step as a list of links, lists within it; empty if it has none.
///
/// # Errors
/// What the API says instead.
pub(crate) async fn tree(source: &impl Source, [build, attempt, step]: [u64; 3]) -> Result<Markup, Problem> {
    let found: LogGroups = read(source, &format!("{}/groups", paths::api_log(build, attempt, step))).await?;
    Ok(html! {
        (branches(&found.groups, [attempt, step]))
        @if found.more { li.quiet { "There are more groups than are listed." } }
    })
}

/// Groups, each of which is followed by those within it. As deep as their depths, which the API bounds.
fn branches(groups: &[LogGroup], of: [u64; 2]) -> Markup {
    let [attempt, step] = of;
    let mut rest = groups;
    let mut siblings = Vec::new();
    while let Some((group, behind)) = rest.split_first() {
        let n_within = behind.iter().take_while(|it| it.depth > group.depth).count();
        siblings.push((group, &behind[..n_within]));
        rest = &behind[n_within..];
    }
    html! {
        @for (group, within) in siblings {
            @let (line, number) = (group.line, group.line + 1);
            li class=(fold_word(group)) data-line=(line) data-end=(group.end) {
                a #(format!("group-{number}")) href=(format!("?attempt={attempt}&step={step}&from={line}#{}:{number}", step + 1)) { (words::first_line(&group.title)) }
                @if !within.is_empty() { ol { (branches(within, of)) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use api::log::GroupFold;

    use super::*;

    #[test]
    fn what_is_in_a_group_stands_below_it() {
        let group = |title: &str, depth, line| LogGroup {
            title: title.to_owned(),
            fold: GroupFold::Closed,
            depth,
            line,
            end: 9,
        };
        let groups = [group("a", 0, 0), group("<b>", 1, 2), group("c", 2, 3), group("d", 1, 4), group("e", 0, 6)];
        let html = branches(&groups, [7, 0]).into_string();
        let mut shape = html.replace("</a>", "");
        while let Some((start, end)) =
            shape.find("<a ").and_then(|start| Some((start, start + shape[start..].find('>')?)))
        {
            shape.replace_range(start..=end, "");
        }
        while let Some(start) = shape.find(" class=") {
            let end = start + shape[start..].find('>').expect("its end");
            shape.replace_range(start..end, "");
        }
        assert_eq!(shape, "<li>a<ol><li>&lt;b&gt;<ol><li>c</li></ol></li><li>d</li></ol></li><li>e</li>");
        assert!(html.contains("id=\"group-4\" href=\"?attempt=7&amp;step=0&amp;from=3#1:4\""), "{html}");
    }
}
