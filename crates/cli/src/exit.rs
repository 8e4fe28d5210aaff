//! Exit codes of `ropewalk`. Documented in the manual; scripts rely on them.

/// Everything asked for passed.
pub const PASSED: u8 = 0;
/// The build failed or diverged.
pub const FAILED: u8 = 1;
/// The pipeline or the command line is wrong.
pub const WRONG: u8 = 2;
/// The machine, the store or another part that is not the pipeline failed.
pub const INFRA: u8 = 3;
/// Everything that could run has run; a gate waits for a person.
pub const WAITING: u8 = 4;
/// The build was canceled.
pub const CANCELED: u8 = 130;
