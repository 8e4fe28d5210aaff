//! The binary `ropewalk`.

fn main() {}
