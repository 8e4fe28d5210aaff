//! Where the nodes and edges of a graph are drawn: columns by depth, few crossings, long edges led around what lies between.
//!
//! The classic way of layers (Sugiyama, Tagawa, Toda 1981): longest paths give columns, an edge over several columns gets a
//! bend in each, sweeps by barycentre order the columns, and the places in a column are the nearest to the neighbours' that
//! keep the distance. The same graph is always drawn the same. Nothing here knows what a job is.

/// The most nodes that are laid out; sets of nodes are words of so many bits.
pub const NODES_MAX: usize = 128;
/// How often columns are ordered by their neighbours, there and back.
const SWEEPS: usize = 6;
/// How often places are drawn towards those of neighbours, there and back.
const PULLS: usize = 4;

/// Sizes in the drawing's own units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measures {
    /// The width of a node.
    pub width: u32,
    /// The height of a node.
    pub height: u32,
    /// Between columns.
    pub between_columns: u32,
    /// Between the nodes of a column.
    pub between_rows: u32,
}

/// A graph with places.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    /// Each node's upper left corner, in the order given.
    pub nodes: Vec<(u32, u32)>,
    /// The edges that are drawn; those that others imply are left out.
    pub edges: Vec<Route>,
    /// The width of all.
    pub width: u32,
    /// The height of all.
    pub height: u32,
}

/// The way of one edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The node that is needed.
    pub from: usize,
    /// The node that needs it.
    pub to: usize,
    /// From the right side of the one to the left side of the other: at each column on the way where it enters and where it leaves.
    pub points: Vec<(u32, u32)>,
}

/// What stands in a column: a node, or the bend of an edge.
struct Place {
    column: usize,
    /// Its place in the column.
    row: usize,
    /// The middle of its height.
    middle: f64,
    /// Half of the room that it takes.
    half: f64,
    before: Vec<usize>,
    after: Vec<usize>,
}

/// Lays out `count` nodes, at most [`NODES_MAX`]; of more, or of none, the layout is empty. An edge leads from what is needed to what
/// needs it. Edges of a circle, or out of the range, are left out.
#[must_use]
pub fn lay_out(count: usize, edges: &[(usize, usize)], measures: Measures) -> Layout {
    if count == 0 || count > NODES_MAX {
        return Layout::default();
    }
    let (columns, edges) = columns(count, edges);
    let (mut places, chains) = places(&columns, &edges, measures);
    let mut order = first_order(&places);
    reorder(&mut places, &mut order);
    settle(&mut places, &order, measures);
    drawn(count, &places, &edges, &chains, measures)
}

/// The column of each node, and the edges that no others imply, by the node that needs.
fn columns(count: usize, edges: &[(usize, usize)]) -> (Vec<usize>, Vec<(usize, usize)>) {
    let mut needs = vec![0_u128; count];
    for &(from, to) in edges.iter().filter(|(from, to)| from.max(to) < &count && from != to) {
        needs[to] |= 1 << from;
    }
    let bits = |set: u128| (0..count).filter(move |node| set >> node & 1 == 1);
    let mut columns = vec![0; count];
    let mut ancestors = vec![0_u128; count];
    let mut done = 0_u128;
    // Each round ends at least one node, or what is left is in a circle.
    while let Some(next) = (0..count).find(|node| done >> node & 1 == 0 && needs[*node] & !done == 0) {
        done |= 1 << next;
        columns[next] = bits(needs[next]).map(|need| columns[need] + 1).max().unwrap_or(0);
        ancestors[next] = bits(needs[next]).fold(needs[next], |all, need| all | ancestors[need]);
    }
    let mut kept = Vec::new();
    for to in bits(done) {
        let implied = bits(needs[to]).fold(0, |all, need| all | ancestors[need]);
        kept.extend(bits(needs[to] & !implied).map(|from| (from, to)));
    }
    (columns, kept)
}

/// Nodes and bends, and the places that each edge goes through, both its ends among them.
fn places(columns: &[usize], edges: &[(usize, usize)], measures: Measures) -> (Vec<Place>, Vec<Vec<usize>>) {
    let place = |column, half| Place { column, row: 0, middle: 0.0, half, before: Vec::new(), after: Vec::new() };
    let node = f64::from(measures.height + measures.between_rows) / 2.0;
    let bend = f64::from(measures.between_rows) / 2.0;
    let mut places: Vec<Place> = columns.iter().map(|column| place(*column, node)).collect();
    let mut chains = Vec::with_capacity(edges.len());
    for &(from, to) in edges {
        let mut chain = vec![from];
        for column in columns[from] + 1..columns[to] {
            chain.push(places.len());
            places.push(place(column, bend));
        }
        chain.push(to);
        for pair in chain.windows(2) {
            places[pair[0]].after.push(pair[1]);
            places[pair[1]].before.push(pair[0]);
        }
        chains.push(chain);
    }
    (places, chains)
}

fn first_order(places: &[Place]) -> Vec<Vec<usize>> {
    let last = places.iter().map(|place| place.column).max().unwrap_or(0);
    let mut order = vec![Vec::new(); last + 1];
    for (index, place) in places.iter().enumerate() {
        order[place.column].push(index);
    }
    order
}

/// Which neighbours a sweep looks at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

impl Side {
    fn of(self, place: &Place) -> &[usize] {
        match self {
            Self::Before => &place.before,
            Self::After => &place.after,
        }
    }
}

/// Orders the columns so that few edges cross: the best of all sweeps.
fn reorder(places: &mut [Place], order: &mut Vec<Vec<usize>>) {
    number(places, order);
    let (mut best, mut fewest) = (order.clone(), crossings(places, order));
    for sweep in 0..SWEEPS * 2 {
        let side = if sweep % 2 == 0 { Side::Before } else { Side::After };
        let mut columns: Vec<usize> = (0..order.len()).collect();
        if side == Side::After {
            columns.reverse();
        }
        for column in columns {
            let middle = |index: &usize| {
                let near = side.of(&places[*index]);
                let sum: usize = near.iter().map(|near| places[*near].row).sum();
                // What has no neighbour there stays where it is.
                if near.is_empty() { places[*index].row as f64 } else { sum as f64 / near.len() as f64 }
            };
            order[column].sort_by(|left, right| middle(left).total_cmp(&middle(right)));
            for (row, index) in order[column].iter().enumerate() {
                places[*index].row = row;
            }
        }
        let crossed = crossings(places, order);
        if crossed < fewest {
            (best, fewest) = (order.clone(), crossed);
        }
    }
    *order = best;
    number(places, order);
}

fn number(places: &mut [Place], order: &[Vec<usize>]) {
    for column in order {
        for (row, index) in column.iter().enumerate() {
            places[*index].row = row;
        }
    }
}

/// How many pairs of edges between neighbouring columns cross.
fn crossings(places: &[Place], order: &[Vec<usize>]) -> usize {
    let mut crossed = 0;
    for column in order {
        let mut ends: Vec<usize> = Vec::new();
        for index in column {
            let mut rows: Vec<usize> = places[*index].after.iter().map(|after| places[*after].row).collect();
            rows.sort_unstable();
            for row in &rows {
                crossed += ends.iter().filter(|end| *end > row).count();
            }
            ends.extend(rows);
        }
    }
    crossed
}

/// Gives every place its height: towards its neighbours, apart from those beside it.
fn settle(places: &mut [Place], order: &[Vec<usize>], measures: Measures) {
    for column in order {
        let mut edge = 0.0;
        for index in column {
            places[*index].middle = edge + places[*index].half;
            edge += places[*index].half * 2.0;
        }
    }
    for pull in 0..PULLS * 2 {
        let side = if pull % 2 == 0 { Side::Before } else { Side::After };
        let columns: Vec<usize> =
            if side == Side::Before { (0..order.len()).collect() } else { (0..order.len()).rev().collect() };
        for column in columns {
            pull_together(places, &order[column], side);
        }
    }
    let highest = places.iter().map(|place| place.middle - place.half).fold(f64::INFINITY, f64::min);
    let gap = f64::from(measures.between_rows) / 2.0;
    for place in places {
        place.middle -= highest + gap;
    }
}

/// The places of one column nearest to where their neighbours would have them, in order and apart: least squares by pooling
/// adjacent violators.
fn pull_together(places: &mut [Place], column: &[usize], side: Side) {
    // Each pool: the sum of what its members want, less what lies before them, and how many they are.
    let mut pools: Vec<(f64, usize)> = Vec::with_capacity(column.len());
    let mut offsets = Vec::with_capacity(column.len());
    let mut offset = 0.0;
    for index in column {
        let place = &places[*index];
        let near = side.of(place);
        let wanted = if near.is_empty() {
            place.middle
        } else {
            near.iter().map(|near| places[*near].middle).sum::<f64>() / near.len() as f64
        };
        offset += place.half;
        offsets.push(offset);
        let mut pool = (wanted - offset, 1);
        offset += place.half;
        while let Some(last) = pools.last() {
            if last.0 / last.1 as f64 <= pool.0 / pool.1 as f64 {
                break;
            }
            pool = (pool.0 + last.0, pool.1 + last.1);
            pools.pop();
        }
        pools.push(pool);
    }
    let levels = pools.iter().flat_map(|(sum, count)| std::iter::repeat_n(sum / *count as f64, *count));
    for ((index, level), offset) in column.iter().zip(levels).zip(offsets) {
        places[*index].middle = level + offset;
    }
}

fn drawn(
    count: usize,
    places: &[Place],
    edges: &[(usize, usize)],
    chains: &[Vec<usize>],
    measures: Measures,
) -> Layout {
    // Never negative: the highest place was put at the upper border.
    let whole = |height: f64| height.max(0.0).round() as u32;
    let left = |place: &Place| place.column as u32 * (measures.width + measures.between_columns);
    let half = f64::from(measures.height) / 2.0;
    let nodes: Vec<(u32, u32)> =
        places[..count].iter().map(|place| (left(place), whole(place.middle - half))).collect();
    let route = |(&(from, to), chain): (&(usize, usize), &Vec<usize>)| {
        let mut points = Vec::with_capacity(chain.len() * 2);
        for (index, place) in chain.iter().map(|index| &places[*index]).enumerate() {
            let middle = whole(place.middle);
            if index > 0 {
                points.push((left(place), middle));
            }
            if index + 1 < chain.len() {
                points.push((left(place) + measures.width, middle));
            }
        }
        Route { from, to, points }
    };
    let edges: Vec<Route> = edges.iter().zip(chains).map(route).collect();
    let lowest_bend = edges.iter().flat_map(|route| &route.points).map(|point| point.1).max().unwrap_or(0);
    let lowest_node = nodes.iter().map(|node| node.1 + measures.height).max().unwrap_or(0);
    let widest = nodes.iter().map(|node| node.0 + measures.width).max().unwrap_or(0);
    Layout { nodes, edges, width: widest, height: lowest_node.max(lowest_bend + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEASURES: Measures = Measures { width: 10, height: 4, between_columns: 6, between_rows: 2 };

    #[track_caller]
    fn check(count: usize, edges: &[(usize, usize)], nodes: &[(u32, u32)], drawn: &[(usize, usize)]) {
        let layout = lay_out(count, edges, MEASURES);
        assert_eq!(layout.nodes, nodes);
        assert_eq!(layout.edges.iter().map(|route| (route.from, route.to)).collect::<Vec<_>>(), drawn);
    }

    #[test]
    fn small_graphs() {
        check(0, &[], &[], &[]);
        check(1, &[], &[(0, 0)], &[]);
        check(2, &[(0, 1)], &[(0, 0), (16, 0)], &[(0, 1)]);
        // A fork: what it comes from stands in the middle.
        check(3, &[(0, 1), (0, 2)], &[(0, 3), (16, 0), (16, 6)], &[(0, 1), (0, 2)]);
        // An edge that others imply is not drawn.
        check(3, &[(0, 1), (1, 2), (0, 2)], &[(0, 0), (16, 0), (32, 0)], &[(0, 1), (1, 2)]);
        // Nor are those of a circle, or those that lead nowhere.
        check(3, &[(0, 1), (1, 0), (2, 2), (7, 1)], &[(0, 0), (0, 6), (0, 12)], &[]);
    }

    #[test]
    fn columns_are_ordered_so_that_edges_do_not_cross() {
        let layout = lay_out(4, &[(0, 3), (1, 2)], MEASURES);
        assert!(layout.nodes[3].1 < layout.nodes[2].1 || layout.nodes[0].1 > layout.nodes[1].1, "{layout:?}");
    }

    #[test]
    fn a_long_edge_passes_by_what_lies_between() {
        // 0 → 1 → 2 and 0 → 3 → 2 with 4 → 2 over a column.
        let layout = lay_out(5, &[(0, 1), (1, 2), (4, 2), (0, 3), (3, 2)], MEASURES);
        let long = layout.edges.iter().find(|route| route.from == 4).expect("it is drawn");
        assert_eq!(long.points.len(), 4);
        let bend = long.points[1].1;
        for node in [1, 3] {
            let (_, top) = layout.nodes[node];
            assert!(bend < top || bend > top + MEASURES.height, "{layout:?}");
        }
    }

    #[test]
    fn nodes_never_lie_on_each_other() {
        // A dense graph from a fixed sequence.
        let mut state = 7_u64;
        let mut next = |most: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % most
        };
        let edges: Vec<(usize, usize)> = (0..400)
            .map(|_| (next(128) as usize, next(128) as usize))
            .map(|(left, right)| (left.min(right), left.max(right)))
            .collect();
        let layout = lay_out(NODES_MAX, &edges, MEASURES);
        let mut nodes = layout.nodes.clone();
        nodes.sort_unstable();
        for pair in nodes.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            assert!(pair[0].1 + MEASURES.height <= pair[1].1, "{pair:?}");
        }
        assert!(layout.nodes.iter().all(|node| node.0 < layout.width && node.1 < layout.height));
        assert!(lay_out(NODES_MAX + 1, &edges, MEASURES).nodes.is_empty());
    }
}
