//! The builds that stand above another: each asked for the next.

use graph::{Event, Parent};

use crate::rows::BuildRow;
use crate::{Store, StoreError};

/// The builds above one with this event, the nearest first, at most [`Parent::DEPTH_MAX`]. Those that are not kept any more end the list.
///
/// # Errors
/// As the medium refuses.
pub fn builds_above(store: &dyn Store, event: &Event) -> Result<Vec<BuildRow>, StoreError> {
    let mut above: Vec<BuildRow> = Vec::new();
    let mut parent = event.parent.clone();
    while let Some(next) = parent.filter(|_| above.len() < Parent::DEPTH_MAX as usize) {
        let Some(row) = store.build(next.build)? else { break };
        parent = row.event.parent.clone();
        above.push(row);
    }
    Ok(above)
}
