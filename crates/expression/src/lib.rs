//! The `${{ }}` language, with GitHub's semantics.
