//! The words of Ropewalk: events, graphs, outcomes, facts of one job. No I/O, no clock.
